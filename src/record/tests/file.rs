//! The ledger as a file.

use super::*;

#[tokio::test]
async fn a_ledger_keeps_its_identity_for_life() {
    let book = Book::file().await;
    let (first, path) = (book.id(), book.path());
    assert_eq!((book.created_at(), book.shown()), (at(0), path.display().to_string()));
    book.close().await;
    for now in [at(5), at(-5)] {
        let again = Ledger::open_or_create(&path, now).await.expect("the same");
        assert_eq!((again.id(), again.created_at()), (first, at(0)));
        let again = Ledger::open_existing(&path, now).await.expect("the same");
        assert_eq!((again.id(), again.created_at()), (first, at(0)));
    }
}

#[tokio::test]
async fn two_ledgers_are_two() {
    assert_ne!(Book::file().await.id(), Book::file().await.id());
}

#[tokio::test]
async fn one_that_must_be_there_is_never_made() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ledger.sqlite3");
    let error = Ledger::open_existing(&path, at(0)).await.expect_err("absent");
    assert!(matches!(&error, RecordError::Absent(absent) if *absent == path.display().to_string()), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0, "nothing is left behind");
}

#[tokio::test]
async fn its_folder_is_made_where_it_may_be() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a/b/ledger.sqlite3");
    Ledger::open_or_create(&path, at(0)).await.expect("made with its folder");
    assert!(path.exists());
    std::fs::write(folder.path().join("file"), "").expect("written");
    let error = Ledger::open_or_create(&folder.path().join("file/ledger.sqlite3"), at(0)).await.expect_err("no folder");
    assert!(matches!(error, RecordError::Folder { .. }), "{error}");
}

#[tokio::test]
async fn one_of_a_newer_version_is_refused_and_left_alone() {
    for change in [
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (9999, 'later', 1, x'00', 0)",
        "UPDATE _sqlx_migrations SET checksum = x'00'",
    ] {
        let book = Book::file().await;
        book.execute(change).await;
        book.close().await;
        let before = std::fs::read(book.path()).expect("the file");
        for opened in
            [Ledger::open_or_create(&book.path(), at(1)).await, Ledger::open_existing(&book.path(), at(1)).await]
        {
            let error = opened.map(|ledger| ledger.id()).expect_err("newer");
            assert!(
                matches!(&error, RecordError::Newer(path) if *path == book.path().display().to_string()),
                "{error}"
            );
            assert_eq!(
                error.to_string(),
                format!("the ledger `{}` was written by a newer version of this program", book.path().display())
            );
        }
        assert_eq!(std::fs::read(book.path()).expect("the file"), before);
    }
}

#[tokio::test]
async fn a_file_that_is_none_is_an_error_and_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ledger.sqlite3");
    let text = "not a database at all, and long enough to have a header of its own".repeat(20);
    std::fs::write(&path, &text).expect("written");
    let error = Ledger::open_existing(&path, at(0)).await.expect_err("no ledger");
    assert!(matches!(error, RecordError::Open { .. } | RecordError::Migrate { .. }), "{error}");
    assert_eq!(std::fs::read_to_string(&path).expect("the file"), text);
}

#[test]
fn several_that_open_at_once_migrate_once_and_agree() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ledger.sqlite3");
    let open = |n: i64| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let ledger = Ledger::open_or_create(&path, at(n)).await.expect("opened");
            let migrations = statement("count", "SELECT count(*) AS migrations FROM _sqlx_migrations");
            let migrations = migrations.one(&ledger.database).await.expect("migrated").count("migrations");
            (ledger.id(), ledger.created_at(), migrations.expect("a count"))
        })
    };
    let opened: BTreeSet<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..6).map(|n| scope.spawn(move || open(n))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let files = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/record/migrations/sqlite"))
        .expect("the migrations")
        .count();
    let [(_, _, migrations)] = opened.into_iter().collect::<Vec<_>>()[..] else { panic!("they disagree") };
    assert_eq!(usize::try_from(migrations), Ok(files));
}

#[tokio::test]
async fn a_backup_is_the_same_ledger_in_a_new_file() {
    let book = Book::file().await;
    book.begin(1).await;
    // Another process writes while the copy is made.
    let writer = Ledger::open_existing(&book.path(), at(0)).await.expect("a second handle");
    let target = book.folder.path().join("copy.sqlite3");
    let writing = async {
        for n in 2..20 {
            let start = RunStart {
                run_id: run(n),
                scope: SCOPE.into(),
                command: "audit".into(),
                is_dry_run: false,
                started_at: at(0),
            };
            writer.begin_run(&start).await.expect("begun");
        }
    };
    let (copied, ()) = tokio::join!(book.backup(&target), writing);
    copied.expect("copied");
    let copy = Ledger::open_existing(&target, at(9)).await.expect("a ledger");
    assert_eq!((copy.id(), copy.created_at()), (book.id(), book.created_at()));
    assert!(copy.knows_run(&run(1).to_string()).await.expect("readable"));
    let before = std::fs::read(&target).expect("the copy");
    let error = book.backup(&target).await.expect_err("it exists");
    assert!(matches!(&error, RecordError::BackupExists(path) if *path == target), "{error}");
    assert_eq!(std::fs::read(&target).expect("the copy"), before, "a backup overwrites nothing");
}

#[test]
fn one_run_holds_the_lock_until_it_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ledger.sqlite3");
    let lock = RunLock::take(&path).expect("free");
    let error = RunLock::take(&path).expect_err("held");
    assert!(matches!(&error, LockError::Held(held) if *held == folder.path().join("ledger.sqlite3.lock")), "{error}");
    drop(lock);
    RunLock::take(&path).expect("free again");
    let error = RunLock::take(&folder.path().join("absent/ledger.sqlite3")).expect_err("no folder");
    assert!(matches!(error, LockError::Io { .. }), "{error}");
    let other = RunLock::take(&folder.path().join("another.sqlite3"));
    assert!(other.is_ok(), "another ledger has another lock");
}
