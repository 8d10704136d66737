//! Spellings: any that parses as a UUID protects its id; only the canonical one, in an exact pattern, can ever go.

use uuid::Uuid;

use crate::support::{MemoryWorld, Program, World, odd_spellings, prefix, without};

/// The verdict and its reason of a prefix in the newest orphans.csv; none where it is no orphan.
fn verdict_of(program: &Program, prefix: &str) -> Option<String> {
    let rows = program.csv("orphans.csv");
    let mut found = rows.iter().filter(|row| row["prefix"] == prefix);
    let row = found.next()?;
    assert!(found.next().is_none(), "{prefix} stands there twice");
    Some(format!("{}: {}", row["verdict"], row["reason"]))
}

/// Every group that an id has in odd spellings, under both patterns.
fn odd_prefixes(id: Uuid) -> Vec<String> {
    let both = |odd: String| [format!("synthetic/{odd}/"), format!("synthetic/dataset-{odd}/")];
    odd_spellings(id).into_iter().flat_map(both).collect()
}

/// The prefixes that foreign.csv names, sorted.
fn foreign(program: &Program) -> Vec<String> {
    let mut named: Vec<String> =
        program.csv("foreign.csv").into_iter().map(|row| row["prefix_or_key"].clone()).collect();
    named.sort();
    named
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_spellings_live_with_their_row_and_are_kept_without_it_also_when_their_canonical_twin_goes() {
    let world = World::new().await;
    let (live, twins, odd_only) = (world.live(0).await, Uuid::new_v4(), Uuid::new_v4());
    for id in [live, twins, odd_only] {
        for prefix in odd_prefixes(id) {
            world.put_group(&prefix, &["rx.npy"]).await;
        }
    }
    for pattern in [0, 1] {
        world.put_group(&prefix(pattern, twins), &["rx.npy", "more.npy"]).await;
    }
    let before = world.contents().await;
    let summary = world.audit().await;
    let odd = odd_spellings(live).len() as u64 * 2;
    assert_eq!(summary["groups"]["live"], 1 + odd, "{summary:#}");
    assert_eq!(summary["groups"]["orphan"], 2 + 2 * odd);
    assert_eq!(summary["groups"]["eligible"], 2);
    assert_eq!(summary["groups"]["foreign"], 0);
    for id in [twins, odd_only] {
        for prefix in odd_prefixes(id) {
            assert_eq!(verdict_of(&world.program, &prefix).as_deref(), Some("keep: not_canonical"), "{prefix}");
        }
    }
    for prefix in odd_prefixes(live) {
        assert_eq!(verdict_of(&world.program, &prefix), None, "{prefix}");
    }
    let summary = world.apply().await.summary(0);
    assert_eq!((&summary["deletion"]["requested"], &summary["deletion"]["deleted"]), (&4.into(), &4.into()));
    assert_eq!(world.contents().await, without(&before, &[prefix(0, twins), prefix(1, twins)]));
    // Kept for ever: nothing of them is ever planned.
    let summary = world.audit().await;
    assert_eq!((&summary["groups"]["orphan"], &summary["groups"]["eligible"]), (&(2 * odd).into(), &0.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn neighbours_in_the_order_of_the_listing_are_foreign_and_the_group_between_them_goes_alone() {
    let world = World::new().await;
    let (live, id) = (world.live(0).await, Uuid::new_v4());
    let mut neighbours = Vec::new();
    for id in [live, id] {
        // `!` to `.` sort before the slash of `<uuid>/`, `0` to `~` after it.
        for tail in ["!", "-", "-x", ".", ".x", "0", "x", "~", " x"] {
            neighbours.push(format!("synthetic/{id}{tail}/"));
            neighbours.push(format!("synthetic/dataset-{id}{tail}/"));
        }
    }
    for prefix in &neighbours {
        world.put_group(prefix, &["a.npy"]).await;
    }
    for pattern in [0, 1] {
        world.put_group(&prefix(pattern, id), &["a.npy", "z/b.npy"]).await;
    }
    let before = world.contents().await;
    let summary = world.audit().await;
    assert_eq!((&summary["groups"]["listed"], &summary["groups"]["eligible"]), (&3.into(), &2.into()), "{summary:#}");
    neighbours.sort();
    assert_eq!(foreign(&world.program), neighbours);
    assert_eq!(world.apply().await.summary(0)["deletion"]["deleted"], 4);
    assert_eq!(world.contents().await, without(&before, &[prefix(0, id), prefix(1, id)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_pattern_reads_is_foreign_and_what_lies_outside_or_is_ignored_is_no_finding() {
    let world = World::new().await;
    world.live(0).await;
    let (id, other) = (world.orphan(0).await, Uuid::new_v4());
    let found = [
        format!("synthetic/dataset-dataset-{id}/"),
        format!("synthetic/Dataset-{id}/"),
        format!("synthetic/x{id}/"),
        format!("synthetic/dataset_{id}/"),
        format!("synthetic/{id}.npy"),
        // A key that is named like a dataset and is none: it lies directly under the prefix.
        format!("synthetic/{other}"),
        format!("synthetic/dataset-{other}"),
        "synthetic/notes.txt".to_owned(),
    ];
    let unseen = [
        "synthetic/.keep".to_owned(),
        format!("synthetic2/{id}/a.npy"),
        format!("Synthetic/{id}/a.npy"),
        format!("{id}/a.npy"),
        format!("a/synthetic/{id}/a.npy"),
    ];
    for prefix_or_key in &found {
        let key = if prefix_or_key.ends_with('/') { format!("{prefix_or_key}a.npy") } else { prefix_or_key.clone() };
        world.bucket.put(&key, b"mine").await;
    }
    for key in &unseen {
        world.bucket.put(key, b"mine").await;
    }
    let before = world.contents().await;
    let summary = world.audit().await;
    assert_eq!(
        (&summary["groups"]["listed"], &summary["groups"]["foreign"]),
        (&2.into(), &found.len().into()),
        "{summary:#}"
    );
    let mut expected = found.to_vec();
    expected.sort();
    assert_eq!(foreign(&world.program), expected);
    for row in world.program.csv("foreign.csv") {
        let is_prefix = row["prefix_or_key"].ends_with('/');
        let expected = if is_prefix { ("prefix", "no_pattern") } else { ("key", "key_outside_groups") };
        assert_eq!((row["kind"].as_str(), row["reason"].as_str()), expected, "{row:?}");
    }
    assert_eq!(world.apply().await.summary(0)["deletion"]["deleted"], 2);
    assert_eq!(world.contents().await, without(&before, &[prefix(0, id)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_segments_and_dots_are_bytes_and_nothing_is_resolved() {
    let world = MemoryWorld::new().await;
    let (live, orphan) = (world.live(0).await, Uuid::new_v4());
    let gone: Vec<String> = ["", "/x", "//", "a//b", "a/./b", "a/../b", "/", "..", ".", "./"]
        .iter()
        .map(|name| format!("{}{name}", prefix(0, orphan)))
        .collect();
    // What a store or a proxy that resolves dots would take for the live dataset's object.
    let climbing = format!("{}../{live}/sample/rx.npy", prefix(0, orphan));
    // XML cannot carry it, so it has a request, and a path, of its own.
    let climbing_alone = format!("{}../{live}/\u{1}", prefix(0, orphan));
    let live_twin = format!("{}\u{1}", prefix(0, live));
    let foreign_keys = [
        "synthetic//x".to_owned(),
        format!("synthetic//{orphan}/x"),
        "synthetic///".to_owned(),
        format!("synthetic/./{orphan}/x"),
    ];
    for key in gone.iter().chain([&climbing, &climbing_alone, &live_twin]).chain(&foreign_keys) {
        world.put(key);
    }
    let before = world.keys();
    let summary = world.audit().await;
    assert_eq!(
        (&summary["groups"]["listed"], &summary["groups"]["live"], &summary["groups"]["foreign"]),
        (&2.into(), &1.into(), &2.into())
    );
    assert_eq!(foreign(&world.program), ["synthetic/./", "synthetic//"]);
    let expected: std::collections::BTreeSet<String> = gone.into_iter().chain([climbing, climbing_alone]).collect();
    assert_eq!(world.apply().await.summary(0)["deletion"]["deleted"], expected.len());
    assert_eq!(world.keys(), &before - &expected);
    assert_eq!(world.asked_to_delete(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_named_like_a_group_is_no_part_of_it() {
    // MinIO has no `a` beside `a/b`; other stores do.
    let world = MemoryWorld::new().await;
    world.live(0).await;
    let id = world.orphan(0);
    for key in
        [format!("synthetic/{id}"), format!("synthetic/dataset-{id}"), "synthetic".to_owned(), "synthetic/".to_owned()]
    {
        world.put(&key);
    }
    let before = world.keys();
    world.audit().await;
    let mut expected = vec![format!("synthetic/{id}"), format!("synthetic/dataset-{id}"), "synthetic/".to_owned()];
    expected.sort();
    assert_eq!(foreign(&world.program), expected);
    assert_eq!(world.apply().await.summary(0)["deletion"]["deleted"], 2);
    let left = before.into_iter().filter(|key| !key.starts_with(&prefix(0, id))).collect();
    assert_eq!(world.keys(), left);
}

/// A world whose ids are text, without a key or a check.
async fn text_world() -> World {
    let mut world = World::new().await;
    let role = world.database.role.clone();
    world.database.execute("CREATE TABLE heimdall.named (name text, dataset_type text DEFAULT 'iq_raw', created_at timestamptz DEFAULT now())").await;
    world.database.execute(&format!("GRANT SELECT ON heimdall.named TO {role}")).await;
    world.program.set_scope("LIVE__0__TABLE", "heimdall.named");
    world.program.set_scope("LIVE__0__ID_COLUMN", "name");
    world
}

async fn name(world: &World, text: &str) {
    world.database.execute(&format!("INSERT INTO heimdall.named (name) VALUES ('{text}')")).await;
}

/// How an id may stand in a text column.
fn rows_of(id: Uuid) -> Vec<String> {
    let mut rows = odd_spellings(id).to_vec();
    rows.extend([
        id.to_string(),
        format!(" {id} "),
        format!("{id}\n"),
        format!("{{{}}}", id.to_string().to_uppercase()),
    ]);
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_column_in_any_spelling_protects_and_nulls_are_ignored() {
    let world = text_world().await;
    let mut live = Vec::new();
    for position in 0..rows_of(Uuid::nil()).len() {
        let id = Uuid::new_v4();
        let row = &rows_of(id)[position];
        name(&world, row).await;
        for pattern in [0, 1] {
            world.put_group(&prefix(pattern, id), &["rx.npy"]).await;
        }
        live.push(id);
    }
    for _ in 0..3 {
        world.database.execute("INSERT INTO heimdall.named (name) VALUES (NULL)").await;
    }
    let orphan = world.orphan(1).await;
    let before = world.contents().await;
    let summary = world.audit().await;
    assert_eq!(
        (&summary["groups"]["live"], &summary["groups"]["orphan"]),
        (&(2 * live.len()).into(), &1.into()),
        "{summary:#}"
    );
    assert_eq!(summary["coverage"]["references"], live.len());
    assert_eq!(verdict_of(&world.program, &prefix(1, orphan)).as_deref(), Some("eligible: eligible"));
    assert_eq!(world.apply().await.summary(0)["deletion"]["deleted"], 2);
    assert_eq!(world.contents().await, without(&before, &[prefix(1, orphan)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_row_in_an_odd_spelling_protects_at_the_last_check_too() {
    for position in 0..rows_of(Uuid::nil()).len() {
        let (world, id) = planned_in_memory().await;
        let row = rows_of(id)[position].clone();
        insert_when_verified(&world, id, row.clone());
        let summary = world.apply().await.summary(0);
        assert_eq!(
            (&summary["deletion"]["deleted"], &summary["deletion"]["skipped"]),
            (&0.into(), &2.into()),
            "{row:?}: {summary:#}"
        );
        assert!(world.program.csv("deletions.csv").iter().all(|row| row["reason"] == "live_again"));
        assert_eq!(world.asked_to_delete().len(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unparsable_row_at_the_last_check_ends_the_run() {
    let (world, id) = planned_in_memory().await;
    insert_when_verified(&world, id, "nonsense".into());
    let before = world.keys();
    let summary = world.apply().await.summary(1);
    assert_eq!(summary["outcome"], "failed", "{summary:#}");
    assert!(summary["reason"].as_str().is_some_and(|reason| reason.contains("`nonsense`")), "{summary:#}");
    assert_eq!(world.asked_to_delete().len(), 0);
    assert_eq!(world.keys(), before);
}

/// An orphan of two objects in the in-memory store, planned, beside live ids in a text column.
async fn planned_in_memory() -> (MemoryWorld, Uuid) {
    let mut world = MemoryWorld::new().await;
    let role = world.database.role.clone();
    world.database.execute("CREATE TABLE heimdall.named (name text, dataset_type text DEFAULT 'iq_raw', created_at timestamptz DEFAULT now())").await;
    world.database.execute(&format!("GRANT SELECT ON heimdall.named TO {role}")).await;
    world.program.set_scope("LIVE__0__TABLE", "heimdall.named");
    world.program.set_scope("LIVE__0__ID_COLUMN", "name");
    for _ in 0..3 {
        let id = world.live(0).await;
        world.database.execute(&format!("INSERT INTO heimdall.named (name) VALUES ('{id}')")).await;
    }
    let id = world.orphan(0);
    assert_eq!(world.audit().await["groups"]["eligible"], 1);
    (world, id)
}

/// Inserts a row once `apply` opens the group: after it read all rows, before it asks again.
fn insert_when_verified(world: &MemoryWorld, id: Uuid, row: String) {
    let (runtime, pool) = (tokio::runtime::Handle::current(), world.database.pool.clone());
    let is_done = std::sync::atomic::AtomicBool::new(false);
    world.store.on_request(move |request, _| {
        let is_opening = request.prefix.as_deref() == Some(prefix(0, id).as_str());
        if is_opening && !is_done.swap(true, std::sync::atomic::Ordering::SeqCst) {
            let insert = sqlx::query("INSERT INTO heimdall.named (name) VALUES ($1)").bind(row.clone());
            runtime.block_on(insert.execute(&pool)).expect("inserted");
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_id_that_is_no_uuid_fails_every_command_and_nothing_is_deleted() {
    let mut world = text_world().await;
    let live = world.live(0).await;
    name(&world, &live.to_string()).await;
    world.orphan(0).await;
    world.audit().await;
    let plan = world.plan_of_newest_audit();
    let before = world.contents().await;
    world.program.set_scope("POLICY__APPROVAL", "automatic");
    for nonsense in [
        "nonsense",
        "",
        "0b5e8f4e-3c1a-4c5e-9a51-2f7d6c3b9a1",
        "0b5e8f4e-3c1a-4c5e-9a51-2f7d6c3b9a1g",
        "dataset-0b5e8f4e-3c1a-4c5e-9a51-2f7d6c3b9a10",
    ] {
        name(&world, nonsense).await;
        for arguments in [vec!["audit", "--json"], vec!["sweep", "--json"], vec!["apply", &plan, "--yes", "--json"]] {
            let summary = world.program.run(&arguments).await.summary(1);
            assert_eq!(
                (&summary["outcome"], &summary["deletion"]),
                (&"failed".into(), &serde_json::Value::Null),
                "{nonsense:?}: {summary:#}"
            );
            assert!(summary["reason"].as_str().is_some_and(|reason| reason.contains("is no UUID")), "{summary:#}");
        }
        assert_eq!(world.contents().await, before, "{nonsense:?}");
        world.database.execute(&format!("DELETE FROM heimdall.named WHERE name = '{nonsense}'")).await;
    }
    // The same plan goes on once the row is corrected.
    let summary = world.program.run(&["apply", &plan, "--yes", "--json"]).await.summary(0);
    assert_eq!(summary["deletion"]["deleted"], 2);
}
