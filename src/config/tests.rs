use std::collections::BTreeSet;
use std::error::Error;

use proptest::prelude::*;
use secrecy::ExposeSecret;

use super::secrets::{Backend, LedgerPlace, SecretError};
use super::tree::Place;
use super::*;
use crate::model::{Grace, Timestamp};

const COMMITTED: &str = include_str!("../../config.toml");
const PATH: &str = "/etc/orphan-sweeper/config.toml";
const CANARY: &str = "c4n4ry-n0b0dy-may-see";

fn variables(pairs: &[(&str, &str)]) -> Variables {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn read_with(text: &str, pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
    parse(text, Path::new(PATH), &variables(pairs))
}

fn loaded(text: &str) -> Config {
    read_with(text, &[]).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// The committed file with variables laid over it.
fn overridden(pairs: &[(&str, &str)]) -> Config {
    read_with(COMMITTED, pairs).unwrap_or_else(|error| panic!("{error}"))
}

fn problems_with(text: &str, pairs: &[(&str, &str)]) -> Vec<Problem> {
    match read_with(text, pairs) {
        Ok(_) => panic!("nothing wrong was found in\n{text}\nwith {pairs:?}"),
        Err(ConfigError::Wrong { problems, path }) => {
            assert_eq!(path, Path::new(PATH));
            assert!(!problems.is_empty(), "an error without a problem helps nobody");
            problems
        }
        Err(other) => panic!("{other}"),
    }
}

fn only_problem(text: &str) -> Problem {
    let mut problems = problems_with(text, &[]);
    assert_eq!(problems.len(), 1, "{problems:#?}\n{text}");
    problems.remove(0)
}

fn only_problem_of(pairs: &[(&str, &str)]) -> Problem {
    let mut problems = problems_with(COMMITTED, pairs);
    assert_eq!(problems.len(), 1, "{problems:#?}");
    problems.remove(0)
}

/// The first line, counted from 1, that sets `key` or is the header `key`.
fn line_of(text: &str, key: &str) -> usize {
    let is_it = |line: &str| {
        line.strip_prefix(key).is_some_and(|rest| key.starts_with('[') || rest.trim_start().starts_with('='))
    };
    text.lines().position(is_it).unwrap_or_else(|| panic!("no line sets `{key}` in\n{text}")) + 1
}

/// The committed file with one line replaced, and that line's number.
fn edited(key: &str, line: &str) -> (String, usize) {
    let number = line_of(COMMITTED, key);
    let lines: Vec<&str> =
        COMMITTED.lines().enumerate().map(|(index, old)| if index + 1 == number { line } else { old }).collect();
    (lines.join("\n"), number)
}

/// The committed file with the value of one key replaced.
fn with_value(key: &str, value: &str) -> (String, usize) {
    edited(key, &format!("{key} = {value}"))
}

/// The committed file with a line added below a header.
fn added_below(header: &str, line: &str) -> (String, usize) {
    let (text, number) = edited(header, &format!("{header}\n{line}"));
    (text, number + 1)
}

/// A second scope, to stand behind the committed one.
fn second_scope(name: &str, bucket: &str, prefix: &str) -> String {
    format!(
        "\n[[scope]]\nname = \"{name}\"\nbucket = \"{bucket}\"\nprefix = \"{prefix}\"\npatterns = [\"{prefix}{{id}}/\"]\n\
         [[scope.live]]\ntable = \"heimdall.models\"\n"
    )
}

mod defaults {
    use super::*;

    #[test]
    fn the_committed_file_says_what_is_documented() {
        let config = loaded(COMMITTED);
        assert_eq!(config.store.endpoint.as_str(), "http://127.0.0.1:9000/");
        assert_eq!((config.store.region.as_str(), config.store.path_style), ("us-east-1", true));
        assert!(config.store.ca_file.is_none() && config.store.credentials.access_key.is_none());
        assert!(config.store.credentials.secret_key.is_none() && config.store.delete_credentials.access_key.is_none());
        assert!(config.database.url_file.is_none());
        assert_eq!(config.ledger.file(), Some(Path::new("/etc/orphan-sweeper/reports/ledger.sqlite3")));
        assert_eq!(config.reports_directory, Path::new("/etc/orphan-sweeper/reports"));
        assert_eq!(config.reports_keep, 400 * DAY);
        assert_eq!(config.stop_file, Path::new("/etc/orphan-sweeper/reports/STOP"));
        let [scope] = config.scopes.as_slice() else { panic!("{:?}", config.scopes) };
        assert_eq!((scope.name.as_str(), scope.bucket.as_str()), ("synthetic", "heimdall-synthetic-iq"));
        assert_eq!(scope.prefix, "synthetic/");
        assert_eq!(scope.templates(), ["synthetic/{id}/", "synthetic/dataset-{id}/"]);
        assert_eq!(scope.ignore, BTreeSet::from(["synthetic/.keep".to_owned()]));
        let [live] = scope.live.as_slice() else { panic!("{:?}", scope.live) };
        assert_eq!(live.table, TableName { schema: "heimdall".into(), table: "synthetic_datasets".into() });
        assert_eq!((live.id_column.as_str(), live.created_at_column.as_deref()), ("id", Some("created_at")));
        let expects = live.expects_objects.as_ref().expect("written");
        assert_eq!((expects.column.as_str(), expects.values.as_slice()), ("dataset_type", &["iq_raw".to_owned()][..]));
        assert_eq!((live.missing_after, live.key.as_str()), (DAY, "scope[0].live[0]"));
    }

    #[test]
    fn the_committed_policy_limits_and_schedule_are_the_documented_ones() {
        let config = loaded(COMMITTED);
        let scope = &config.scopes[0];
        assert_eq!(scope.policy.grace, Grace(DAY * 7));
        assert_eq!((scope.policy.min_sightings, scope.policy.min_sighting_span), (3, DAY * 2));
        assert_eq!((scope.policy.plan_expires, scope.policy.approval), (DAY * 3, Approval::Required));
        assert!(!scope.policy.unsafe_short_grace);
        let limits = Limits {
            max_orphan_share: 0.10,
            max_orphan_groups: 10_000,
            max_objects: 1_000_000,
            max_bytes: 1 << 40,
            max_foreign_share: 0.10,
            max_live_drop: 0.05,
            min_overlap: 0.50,
            small: 5,
        };
        assert_eq!(scope.limits, limits);
        let schedule = scope.schedule.as_ref().expect("written");
        assert_eq!((schedule.cron.pattern.to_string().as_str(), schedule.timezone), ("0 3 * * *", chrono_tz::UTC));
        assert_eq!(schedule.command, ScheduledCommand::Audit);
    }

    /// The keys of the committed file that have a default: those that it does not call required or without one.
    const DEFAULTED: &str = "region path_style path directory keep stop_file id id_column missing_after grace min_sightings \
        min_sighting_span plan_expires approval max_orphan_share max_orphan_groups max_objects max_bytes \
        max_foreign_share max_live_drop min_overlap small timezone command listen max_body request_timeout [ledger] [reports] [deletion] [serve]";

    #[test]
    fn what_the_committed_file_calls_a_default_may_be_left_out() {
        let mut text = COMMITTED.to_owned();
        for key in DEFAULTED.split_whitespace() {
            let number = line_of(&text, key);
            text = text
                .lines()
                .enumerate()
                .filter(|(index, _)| index + 1 != number)
                .map(|(_, line)| line)
                .collect::<Vec<_>>()
                .join("\n");
        }
        text = text.replace("[database]", "").replace("[scope.policy]", "").replace("[scope.limits]  ", "#");
        let keys = text.lines().filter(|line| line.contains('=') && !line.starts_with('#')).count();
        assert_eq!(keys, 10, "only what is required or has no default is left:\n{text}");
        assert_eq!(format!("{:#?}", loaded(&text)), format!("{:#?}", loaded(COMMITTED)));
    }

    #[test]
    fn what_the_committed_file_comments_out_is_known() {
        let is_key = regex::Regex::new(r"^# (\[|[a-z_]+ +=|[a-z_]+ = )").expect("a regex");
        let uncommented: Vec<&str> =
            COMMITTED.lines().map(|line| if is_key.is_match(line) { &line[2..] } else { line }).collect();
        let config = loaded(&uncommented.join("\n"));
        assert_eq!(config.store.ca_file.as_deref(), Some(Path::new("/etc/ssl/private-ca.pem")));
        assert_eq!(config.store.credentials.access_key.as_deref(), Some(Path::new("/run/secrets/s3_access_key")));
        assert_eq!(config.store.credentials.secret_key.as_deref(), Some(Path::new("/run/secrets/s3_secret_key")));
        assert_eq!(
            config.store.delete_credentials.access_key.as_deref(),
            Some(Path::new("/run/secrets/s3_delete_access_key"))
        );
        assert_eq!(
            config.store.delete_credentials.secret_key.as_deref(),
            Some(Path::new("/run/secrets/s3_delete_secret_key"))
        );
        assert_eq!(config.serve.hosts, ["sweeper.example.org"]);
        assert_eq!(config.serve.origins, ["https://console.example.org"]);
        assert!(config.scopes[0].policy.unsafe_short_grace);
        assert_eq!(config.scopes[0].uploads.abort_after, Some(DAY * 7));
        assert_eq!(config.scopes[0].capacity, Some(500_000_000_000));
        let holds = HoldsSource::File(PathBuf::from("/etc/orphan-sweeper/holds.csv"));
        assert_eq!(config.scopes[0].holds, Some(holds), "beside the configuration");
        assert_eq!(config.notify.url_file.as_deref(), Some(Path::new("/run/secrets/notify_url")));
        assert_eq!(config.notify.heartbeat_url_file.as_deref(), Some(Path::new("/run/secrets/heartbeat_url")));
        let default = loaded(COMMITTED).notify;
        assert!(default.url_file.is_none() && default.heartbeat_url_file.is_none(), "by default nobody is told");
        assert_eq!((config.notify.format, &config.notify.events), (default.format, &default.events));
        assert_eq!((config.notify.timeout, default.events.len()), (default.timeout, Event::ALL.len()));
    }

    #[test]
    fn holds_stand_in_a_file_or_in_a_table() {
        assert_eq!(loaded(COMMITTED).scopes[0].holds, None);
        let table =
            loaded(&format!("{COMMITTED}\n[scope.holds]\ntable = \"heimdall.holds\"\n")).scopes[0].holds.clone();
        assert_eq!(table, Some(HoldsSource::Table(TableName { schema: "heimdall".into(), table: "holds".into() })));
        let config = overridden(&[("ORPHAN_SWEEPER__SCOPE__SYNTHETIC__HOLDS__FILE", "/srv/holds.csv")]);
        assert_eq!(config.scopes[0].holds, Some(HoldsSource::File("/srv/holds.csv".into())));
    }

    #[test]
    fn a_scope_without_a_schedule_runs_only_when_asked() {
        let text = COMMITTED.split("[scope.schedule]").next().expect("a part");
        assert!(loaded(text).scopes[0].schedule.is_none());
    }
}

mod one_problem {
    use super::*;

    /// Sets `key` to `value` and expects one problem there, that says each of `fragments`.
    fn check(key: &str, value: &str, dotted: &str, fragments: &[&str]) {
        let (text, line) = with_value(key, value);
        let problem = only_problem(&text);
        assert_eq!((&problem.place, problem.key.as_str()), (&Place::Line(line), dotted), "{key} = {value}: {problem}");
        for fragment in fragments {
            assert!(problem.message.contains(fragment), "{key} = {value}: `{fragment}` is not in: {}", problem.message);
        }
    }

    #[test]
    fn the_endpoint_must_be_a_plain_address() {
        const WRITE: &str = "write the store's address, such as \"http://127.0.0.1:9000\"";
        for (value, found) in [
            ("\"127.0.0.1:9000\"", "is no address"),
            ("\"ftp://store\"", "is no http or https address"),
            ("\"http://\"", "is no address"),
            ("\"http://store/bucket\"", "has more than scheme, host and port"),
            ("\"http://store?x=1\"", "has more than scheme, host and port"),
            ("\"http://store#x\"", "has more than scheme, host and port"),
            ("\"http://user@store\"", "holds credentials"),
            ("\"http://:secret@store\"", "holds credentials"),
            ("\"\"", "is empty"),
            ("true", "is true or false"),
            ("[\"http://store\"]", "is a list"),
        ] {
            check("endpoint", value, "store.endpoint", &[found, WRITE]);
        }
        assert_eq!(
            loaded(&with_value("endpoint", "\"https://store:9000/\"").0).store.endpoint.as_str(),
            "https://store:9000/"
        );
    }

    #[test]
    fn plain_values_must_be_of_their_kind() {
        check("region", "0.5", "store.region", &["is a number", "write a region"]);
        check("path_style", "\"yes\"", "store.path_style", &["is a text", "write true or false"]);
        check("path", "\"\"", "ledger.path", &["is empty", "write the path of a file"]);
        check("directory", "[]", "reports.directory", &["is a list", "write the path of a folder"]);
        check("stop_file", "{ a = 1 }", "deletion.stop_file", &["is a table", "write the path of a file"]);
        check("bucket", "\"\"", "scope[0].bucket", &["is empty", "write the bucket's name"]);
        check("id", "\"int\"", "scope[0].id", &["`int`", "write \"uuid\""]);
        check("id_column", "1979-05-27", "scope[0].live[0].id_column", &["is a date", "write a column's name"]);
        check("ignore", "\"synthetic/.keep\"", "scope[0].ignore", &["is no list of texts", "[\"one\", \"two\"]"]);
        check("ignore", "[\"a\", 1]", "scope[0].ignore", &["is no list of texts"]);
        check(
            "approval",
            "\"auto\"",
            "scope[0].policy.approval",
            &["`auto` is no choice", "\"required\" or \"automatic\""],
        );
        check("command", "\"apply\"", "scope[0].schedule.command", &["`apply` is no choice", "\"audit\" or \"sweep\""]);
    }

    #[test]
    fn a_name_must_be_able_to_be_a_folder() {
        for name in ["a b", "../x", "-x", "_x", ".", "a/b", "ü"] {
            check(
                "name",
                &format!("\"{name}\""),
                "scope[0].name",
                &[&format!("`{name}` cannot be part of a path"), "letters, digits"],
            );
        }
        assert_eq!(loaded(&with_value("name", "\"A-1_b\"").0).scopes[0].name, "A-1_b");
    }

    #[test]
    fn a_prefix_must_end_in_a_slash() {
        check("prefix", "\"synthetic\"", "scope[0].prefix", &["does not end in `/`", "write \"synthetic/\""]);
        check("prefix", "\"\"", "scope[0].prefix", &["is empty"]);
    }

    #[test]
    fn a_template_must_be_one_that_can_be_listed() {
        for (template, found) in [
            ("synthetic/", "`{id}` must stand in it exactly once"),
            ("synthetic/{id}-{id}/", "`{id}` must stand in it exactly once"),
            ("synthetic/{id}", "it must end in `/`"),
            ("other/{id}/", "after the scope's prefix `synthetic/` it may hold one `/`"),
            ("synthetic/a/{id}/", "after the scope's prefix `synthetic/` it may hold one `/`"),
        ] {
            check(
                "patterns",
                &format!("[\"{template}\"]"),
                "scope[0].patterns",
                &[&format!("`{template}`"), found, "write templates such as"],
            );
        }
        check(
            "patterns",
            "[\"synthetic/{id}/\", \"synthetic/{id}/\"]",
            "scope[0].patterns",
            &["stands there twice", "remove one"],
        );
        check("patterns", "[]", "scope[0].patterns", &["is empty", "write templates such as"]);
        check("patterns", "\"synthetic/{id}/\"", "scope[0].patterns", &["is no list of texts"]);
    }

    #[test]
    fn a_table_that_is_read_twice_is_called_by_its_columns() {
        let table = |column: &str| format!("[[scope.live]]\ntable = \"heimdall.uses\"\nid_column = \"{column}\"\n");
        let labels = |tables: &str| -> Vec<String> {
            let config = loaded(&COMMITTED.replace("[scope.policy]", &format!("{tables}[scope.policy]")));
            config.scopes[0].live.iter().map(|live| live.label.clone()).collect()
        };
        assert_eq!(labels(&table("a")), ["heimdall.synthetic_datasets", "heimdall.uses"]);
        let both = table("a") + &table("b");
        assert_eq!(labels(&both), ["heimdall.synthetic_datasets", "heimdall.uses (a)", "heimdall.uses (b)"]);
        let twice = COMMITTED.replace("[scope.policy]", &format!("{both}{}[scope.policy]", table("a")));
        let problem = only_problem(&twice);
        assert!(problem.message.contains("reads `heimdall.uses (a)` twice"), "{problem:?}");
    }

    #[test]
    fn a_group_can_name_255_patterns_and_no_more() {
        let list = |count: usize| {
            format!("[{}]", (0..count).map(|n| format!("\"synthetic/{n}-{{id}}/\"")).collect::<Vec<_>>().join(", "))
        };
        assert_eq!(loaded(&with_value("patterns", &list(255)).0).scopes[0].patterns.len(), 255);
        check("patterns", &list(256), "scope[0].patterns", &["has more than 255 templates", "split the scope"]);
    }

    #[test]
    fn a_table_must_be_qualified() {
        for table in ["synthetic_datasets", "a.b.c", ".datasets", "heimdall.", "heimdall. "] {
            let found = format!("`{table}` is not qualified by its schema");
            check(
                "table",
                &format!("\"{table}\""),
                "scope[0].live[0].table",
                &[&found, "write schema and table, such as \"heimdall."],
            );
        }
    }

    #[test]
    fn rows_that_expect_objects_are_named_by_a_column_and_its_values() {
        check(
            "expects_objects",
            "{ column = \"kind\" }",
            "scope[0].live[0].expects_objects.values",
            &["is missing", "[\"iq_raw\"]"],
        );
        check(
            "expects_objects",
            "{ values = [\"a\"] }",
            "scope[0].live[0].expects_objects.column",
            &["is missing", "a column's name"],
        );
        check(
            "expects_objects",
            "{ column = \"k\", values = [] }",
            "scope[0].live[0].expects_objects.values",
            &["is empty", "[\"iq_raw\"]"],
        );
        check(
            "expects_objects",
            "\"iq_raw\"",
            "scope[0].live[0].expects_objects",
            &["is a text", "write it as a table, `[scope.live.expects_objects]`"],
        );
        let unknown = "{ column = \"k\", values = [\"a\"], value = \"b\" }";
        check(
            "expects_objects",
            unknown,
            "scope[0].live[0].expects_objects.value",
            &["is no known key", "write `values`"],
        );
    }

    #[test]
    fn a_duration_needs_a_number_and_a_unit_and_no_sign() {
        const WRITE: &str = "write a duration with its unit, such as \"7d\" or \"36h\"";
        for (key, dotted) in [
            ("keep", "reports.keep"),
            ("missing_after", "scope[0].live[0].missing_after"),
            ("grace", "scope[0].policy.grace"),
            ("min_sighting_span", "scope[0].policy.min_sighting_span"),
            ("plan_expires", "scope[0].policy.plan_expires"),
        ] {
            for (value, found) in [
                ("\"-7d\"", "`-7d` is negative"),
                ("\" -7d\"", "` -7d` is negative"),
                ("-7", "`-7` is negative"),
                ("7", "`7` has no unit"),
                ("\"7\"", "`7` is no duration"),
                ("\"soon\"", "`soon` is no duration"),
                ("\"7d -1h\"", "`7d -1h` is no duration"),
                ("\"99999999999999999999d\"", "is no duration"),
                ("\"\"", "is no duration"),
                ("7.5", "is a number"),
                ("true", "is true or false"),
            ] {
                check(key, value, dotted, &[found, WRITE]);
            }
        }
    }

    #[test]
    fn uploads_are_aborted_only_where_the_scope_says_so_and_never_within_a_day() {
        let with = |line: &str| format!("{COMMITTED}\n[scope.uploads]\n{line}\n");
        for text in [COMMITTED.to_owned(), with("")] {
            let uploads = loaded(&text).scopes[0].uploads;
            assert_eq!((uploads.abort_after, uploads.stale_after()), (None, DAY * 7));
        }
        let uploads = loaded(&with("abort_after = \"24h\"")).scopes[0].uploads;
        assert_eq!((uploads.abort_after, uploads.stale_after()), (Some(DAY), DAY));
        let short = with("abort_after = \"23h 59m 59s\"");
        let problem = only_problem(&short);
        assert_eq!(problem.key, "scope[0].uploads.abort_after");
        assert_eq!(problem.place, Place::Line(COMMITTED.lines().count() + 3));
        assert!(problem.message.starts_with("`23h 59m 59s` is below the floor of 24h; write 24h or more"), "{problem}");
        loaded(&short.replace("[scope.policy]", "[scope.policy]\nunsafe_short_grace = true"));
        let variable = "ORPHAN_SWEEPER__SCOPE__SYNTHETIC__UPLOADS__ABORT_AFTER";
        assert_eq!(overridden(&[(variable, "2d")]).scopes[0].uploads.abort_after, Some(DAY * 2));
        assert!(only_problem_of(&[(variable, "2")]).message.contains("`2` has no unit"));
        assert!(only_problem(&with("abort_afer = \"7d\"")).message.contains("write `abort_after`"));
    }

    #[test]
    fn floors_hold_just_below_them_and_not_at_them() {
        const SWITCH: &str = "or set `unsafe_short_grace = true` where no data can be lost";
        for (key, below, shown, at) in [
            ("grace", "\"23h 59m 59s\"", "`23h 59m 59s` is below the floor of 24h; write 24h or more", "\"24h\""),
            (
                "min_sighting_span",
                "\"23h 59m 59s\"",
                "`23h 59m 59s` is below the floor of 24h; write 24h or more",
                "\"24h\"",
            ),
            ("min_sightings", "2", "`2` is below the floor of 3; write 3 or more", "3"),
        ] {
            check(key, below, &format!("scope[0].policy.{key}"), &[shown, SWITCH]);
            loaded(&with_value(key, at).0);
            let (text, _) = with_value(key, below);
            loaded(&text.replace("[scope.policy]", "[scope.policy]\nunsafe_short_grace = true"));
            let refused = text.replace("[scope.policy]", "[scope.policy]\nunsafe_short_grace = false");
            assert!(only_problem(&refused).message.contains("below the floor"), "{key}");
        }
        check("min_sightings", "0", "scope[0].policy.min_sightings", &["`0` is below 1"]);
    }

    #[test]
    fn a_part_of_a_second_lengthens_the_grace() {
        let grace = |value: &str| loaded(&with_value("grace", value).0).scopes[0].policy.grace;
        assert_eq!(grace("\"24h 1ns\""), Grace(DAY + Duration::from_secs(1)));
        assert_eq!(
            grace("\"18446744073709551615s 1ns\""),
            Grace(Duration::from_secs(u64::MAX)),
            "and never wraps to none"
        );
    }

    #[test]
    fn counts_are_whole_and_not_negative() {
        for (key, dotted) in [
            ("min_sightings", "scope[0].policy.min_sightings"),
            ("max_orphan_groups", "scope[0].limits.max_orphan_groups"),
            ("max_objects", "scope[0].limits.max_objects"),
            ("small", "scope[0].limits.small"),
        ] {
            check(key, "-1", dotted, &["`-1` is below", "write a whole number from"]);
            check(key, "2.5", dotted, &["is a number", "write a whole number from"]);
            check(key, "\"3\"", dotted, &["is a text", "write a whole number from"]);
        }
        let config = loaded(&with_value("max_objects", "0").0);
        assert_eq!(config.scopes[0].limits.max_objects, 0);
        let config = loaded(&with_value("min_sightings", "99_999_999_999").0);
        assert_eq!(config.scopes[0].policy.min_sightings, u32::MAX, "more than can be counted never comes");
    }

    #[test]
    fn a_share_lies_from_0_to_1() {
        const WRITE: &str = "write a share from 0.0 to 1.0";
        for key in ["max_orphan_share", "max_foreign_share", "max_live_drop", "min_overlap"] {
            let dotted = format!("scope[0].limits.{key}");
            for (value, found) in [
                ("1.000001", "`1.000001` is no share"),
                ("-0.000001", "`-0.000001` is no share"),
                ("nan", "`NaN` is no share"),
                ("inf", "`inf` is no share"),
                ("2", "`2` is no share"),
                ("-1", "`-1` is no share"),
                ("\"10%\"", "is a text"),
            ] {
                check(key, value, &dotted, &[found, WRITE]);
            }
            for value in ["0", "0.0", "1", "1.0"] {
                loaded(&with_value(key, value).0);
            }
        }
        assert!((loaded(&with_value("min_overlap", "1").0).scopes[0].limits.min_overlap - 1.0).abs() < f64::EPSILON);
        assert!(loaded(&with_value("min_overlap", "0").0).scopes[0].limits.min_overlap < f64::EPSILON);
    }

    #[test]
    fn a_size_has_a_known_unit() {
        const WRITE: &str = "write a size such as \"500GB\" or \"1TiB\"";
        for (value, found) in [
            ("\"1 parsec\"", "`1 parsec` is no size"),
            ("\"-1GB\"", "`-1GB` is no size"),
            ("\"\"", "`` is no size"),
            ("-1", "`-1` is negative"),
            ("0.5", "is a number"),
        ] {
            check("max_bytes", value, "scope[0].limits.max_bytes", &[found, WRITE]);
            let (text, line) = edited("# capacity", &format!("capacity = {value}"));
            let problem = only_problem(&text);
            assert_eq!((problem.place, problem.key.as_str()), (Place::Line(line), "scope[0].capacity"));
        }
        for (value, bytes) in
            [("\"1kB\"", 1000), ("\"1KiB\"", 1024), ("\"2GiB\"", 2 << 30), ("\"500GB\"", 500_000_000_000), ("12", 12)]
        {
            assert_eq!(loaded(&with_value("max_bytes", value).0).scopes[0].limits.max_bytes, bytes, "{value}");
        }
    }

    #[test]
    fn a_calendar_must_be_one_and_come() {
        const WRITE: &str = "write five or six fields, such as \"0 3 * * *\"";
        for (cron, found) in [
            ("0 3 * *", "is no cron expression"),
            ("* * * * * * *", "is no cron expression"),
            ("60 * * * *", "is no cron expression"),
            ("nightly", "is no cron expression"),
            ("0 0 31 2 *", "`0 0 31 2 *` never comes"),
        ] {
            check("cron", &format!("\"{cron}\""), "scope[0].schedule.cron", &[found, WRITE]);
        }
        for cron in ["0 3 * * *", "30 0 3 * * *", "0 0 29 2 *"] {
            loaded(&with_value("cron", &format!("\"{cron}\"")).0);
        }
        check(
            "timezone",
            "\"Mars/Olympus\"",
            "scope[0].schedule.timezone",
            &["`Mars/Olympus` is no known time zone", "\"Europe/Berlin\""],
        );
        check("timezone", "\"\"", "scope[0].schedule.timezone", &["is empty"]);
        let berlin = loaded(&with_value("timezone", "\"Europe/Berlin\"").0);
        assert_eq!(berlin.scopes[0].schedule.as_ref().expect("written").timezone, chrono_tz::Europe::Berlin);
    }

    #[test]
    fn what_is_required_is_missed_where_it_belongs() {
        for (key, header, dotted, write) in [
            ("endpoint", "[store]", "store.endpoint", "write the store's address"),
            ("name", "[[scope]]", "scope[0].name", "write a name of letters"),
            ("bucket", "[[scope]]", "scope[0].bucket", "write the bucket's name"),
            ("prefix", "[[scope]]", "scope[0].prefix", "write the prefix to list"),
            ("patterns", "[[scope]]", "scope[0].patterns", "write templates such as"),
            ("table", "[[scope.live]]", "scope[0].live[0].table", "write schema and table"),
            ("cron", "[scope.schedule]", "scope[0].schedule.cron", "write five or six fields"),
        ] {
            let (text, _) = edited(key, "");
            let problem = only_problem(&text);
            let expected = (Place::Line(line_of(COMMITTED, header)), dotted);
            assert_eq!((problem.place, problem.key.as_str()), expected, "{key}");
            assert!(
                problem.message.starts_with("is missing; ") && problem.message.contains(write),
                "{}",
                problem.message
            );
        }
    }

    #[test]
    fn lists_of_tables_need_an_entry() {
        let without_live = COMMITTED.replace("[[scope.live]]", "[scope.ignored]").replace("ignore   =", "# ignore");
        let live: Vec<_> =
            problems_with(&without_live, &[]).into_iter().filter(|problem| problem.key == "scope[0].live").collect();
        assert_eq!(live.len(), 1, "{live:?}");
        assert!(live[0].message.contains(
            "is missing; write at least one `[[scope.live]]`: without rows every dataset would be an orphan"
        ));
        let problem = only_problem("[store]\nendpoint = \"http://s\"\n");
        assert_eq!((problem.place, problem.key.as_str()), (Place::Whole, "scope"));
        assert_eq!(problem.message, "is missing; write at least one `[[scope]]`");
        for (scope, message) in [
            ("[]", "is empty; write at least one `[[scope]]`"),
            ("{ name = \"x\" }", "is a table; write it as `[[scope]]`"),
            ("\"synthetic\"", "is a text; write it as `[[scope]]`"),
            ("[\"synthetic\"]", "is a text; write it as a table, `[[scope]]`"),
        ] {
            let problem = only_problem(&format!("scope = {scope}\n[store]\nendpoint = \"http://s\"\n"));
            assert_eq!((problem.place, problem.message.as_str()), (Place::Line(1), message));
        }
    }

    #[test]
    fn a_table_that_is_none_is_said() {
        let problem = only_problem(&format!("database = \"postgres://db\"\n{}", COMMITTED.replace("[database]", "")));
        assert_eq!(problem.to_string(), "line 1: `database`: is a text; write it as a table, `[database]`");
        let (text, number) = added_below("[[scope]]", "policy = 7");
        let problem = only_problem(text.split("[scope.policy]").next().expect("a part"));
        let told =
            format!("line {number}: `scope[0].policy`: is a whole number; write it as a table, `[scope.policy]`");
        assert_eq!(problem.to_string(), told);
    }

    #[test]
    fn a_number_in_the_file_is_no_text() {
        check("bucket", "123", "scope[0].bucket", &["is a whole number", "write the bucket's name"]);
    }
}

mod unknown_and_reserved {
    use super::*;

    #[test]
    fn an_unknown_key_is_answered_with_the_nearest_one() {
        for (header, line, dotted, advice) in [
            ("[store]", "endpont = \"x\"", "store.endpont", "write `endpoint`"),
            ("[store]", "paths_style = true", "store.paths_style", "write `path_style`"),
            ("[database]", "url = \"postgres://db\"", "database.url", "remove it, or use one of: url_file"),
            ("[ledger]", "pth = \"x\"", "ledger.pth", "write `path`"),
            ("[reports]", "dirctory = \"x\"", "reports.dirctory", "write `directory`"),
            ("[deletion]", "stopfile = \"x\"", "deletion.stopfile", "write `stop_file`"),
            ("[[scope]]", "patern = []", "scope[0].patern", "write `patterns`"),
            ("[[scope.live]]", "id_colum = \"x\"", "scope[0].live[0].id_colum", "write `id_column`"),
            ("[scope.policy]", "min_sighting = 3", "scope[0].policy.min_sighting", "write `min_sightings`"),
            ("[scope.limits]", "max_object = 3", "scope[0].limits.max_object", "write `max_objects`"),
            ("[scope.schedule]", "crom = \"x\"", "scope[0].schedule.crom", "write `cron`"),
            (
                "[scope.schedule]",
                "zebra = 1",
                "scope[0].schedule.zebra",
                "remove it, or use one of: cron, timezone, command",
            ),
        ] {
            let (text, number) = added_below(header, line);
            let problem = only_problem(&text);
            assert_eq!((problem.place, problem.key.as_str()), (Place::Line(number), dotted), "{line}");
            assert_eq!(problem.message, format!("is no known key; {advice}"), "{line}");
        }
        let problem = only_problem(&format!("{COMMITTED}\n[stroe]\nregion = \"x\"\n"));
        assert_eq!(
            problem.to_string(),
            format!("line {}: `stroe`: is no known key; write `store`", COMMITTED.lines().count() + 2)
        );
    }

    #[test]
    fn holds_name_one_place() {
        for (lines, offset, key, says) in [
            ("[scope.holds]", 2, "file", "is missing; write the path of a CSV file"),
            ("[scope.holds]\nfile = \"a\"\ntable = \"s.t\"", 4, "table", "stands beside `file`; keep one of the two"),
            ("[scope.holds]\ntable = \"holds\"", 3, "table", "is not qualified by its schema"),
            ("[scope.holds]\nfile = 3", 3, "file", "is a whole number; write the path of a CSV file"),
            ("[scope.holds]\nfiel = \"a\"\nfile = \"b\"", 3, "fiel", "is no known key; write `file`"),
        ] {
            let problem = only_problem(&format!("{COMMITTED}\n{lines}\n"));
            let line = COMMITTED.lines().count() + offset;
            assert_eq!((problem.place, problem.key), (Place::Line(line), format!("scope[0].holds.{key}")), "{lines}");
            assert!(problem.message.contains(says), "{lines}: {}", problem.message);
        }
    }

    #[test]
    fn who_is_told_is_told_what_is_wrong() {
        for (line, key, says) in [
            ("format = \"teams\"", "format", "`teams` is no known format; write \"json\" or \"slack\""),
            ("events = [\"trips\"]", "events", "`trips` is no known event; use some of: \"trip\", \"failure\""),
            ("events = \"trip\"", "events", "is no list of texts"),
            ("timeout = \"0s\"", "timeout", "is no time to wait for an answer; write a duration up to 60s"),
            ("timeout = \"61s\"", "timeout", "is no time to wait for an answer"),
            ("urlfile = \"hook\"", "urlfile", "is no known key; write `url_file`"),
        ] {
            let problem = only_problem(&format!("{COMMITTED}\n[notify]\n{line}\n"));
            assert_eq!(problem.key, format!("notify.{key}"), "{line}");
            assert!(problem.message.contains(says), "{line}: {}", problem.message);
        }
    }

    #[test]
    fn a_key_of_the_wrong_table_is_unknown() {
        let (text, number) = added_below("[scope.limits]", "grace = \"7d\"");
        assert_eq!(only_problem(&text).place, Place::Line(number));
        let (text, _) = added_below("[store]", "stop_file = \"x\"");
        assert_eq!(only_problem(&text).key, "store.stop_file");
    }

    #[test]
    fn the_api_listens_on_loopback_by_default_and_every_wrong_value_is_told() {
        let config = parse(COMMITTED, Path::new("config.toml"), &Variables::new()).expect("a configuration");
        assert_eq!(config.serve.listen, Some("127.0.0.1:8080".parse().expect("an address")));
        let off = parse(&with_serve("listen = \"off\""), Path::new("config.toml"), &Variables::new());
        assert_eq!(off.expect("a configuration").serve.listen, None);
        for (line, key, says) in [
            ("listen = \"8080\"", "listen", "is no address with a port"),
            ("listen = \"localhost:8080\"", "listen", "is no address with a port"),
            ("listen = 8080", "listen", "is a whole number; write an address such as"),
            ("hosts = [\"sweeper.example.org:8080\"]", "hosts", "write a host name without a port"),
            ("origins = [\"https://example.org/page\"]", "origins", "write scheme, host and port of a page"),
            ("max_body = \"1GiB\"", "max_body", "is not between 1KiB and 16MiB"),
            ("request_timeout = \"0s\"", "request_timeout", "is no time at all"),
            ("port = 8080", "port", "is no known key"),
        ] {
            let problem = only_problem(&with_serve(line));
            assert_eq!(problem.key, format!("serve.{key}"), "{line}");
            assert!(problem.message.contains(says), "{line}: {}", problem.message);
        }
    }

    /// The committed configuration with only this line in `[serve]`.
    fn with_serve(line: &str) -> String {
        let (before, after) = COMMITTED.split_once("[serve]\n").expect("a section");
        let rest = after.split_once("\n[[scope]]").expect("scopes").1;
        format!("{before}[serve]\n{line}\n\n[[scope]]{rest}")
    }

    #[test]
    fn a_ledger_is_a_file_or_a_database_and_never_both() {
        let url = "url = \"postgres://user:canary@host/d\"";
        for (text, pairs, key, other) in [
            (added_below("[ledger]", url).0, vec![], "ledger.path", "`ledger.url` a database"),
            (added_below("[ledger]", "url_file = \"u\"").0, vec![], "ledger.path", "`ledger.url_file` a database"),
            (
                COMMITTED.into(),
                vec![("ORPHAN_SWEEPER_LEDGER_URL", "postgres://canary@h/d")],
                "ledger.path",
                "ORPHAN_SWEEPER_LEDGER_URL a database",
            ),
        ] {
            let problems = problems_with(&text, &pairs);
            let [problem] = problems.as_slice() else { panic!("{problems:?}") };
            assert_eq!(problem.key, key);
            assert!(
                problem.message.contains(other) && problem.message.contains("remove `path`"),
                "{}",
                problem.message
            );
            assert!(!problem.message.contains("canary"), "{}", problem.message);
        }
        let text = without_path(&format!("{url}\nurl_file = \"u\""));
        let problems = problems_with(&text, &[]);
        assert!(problems.len() == 1 && problems[0].message.ends_with("keep one"), "{problems:?}");
    }

    #[test]
    fn a_pair_of_credential_files_is_whole_or_absent() {
        for (header, dotted) in [("[store]", "store"), ("[store.delete]", "store.delete")] {
            for (given, line) in
                [("access_key_file", "access_key_file = \"a\""), ("secret_key_file", "secret_key_file = \"s\"")]
            {
                let (text, number) = if header == "[store]" {
                    added_below(header, line)
                } else {
                    (format!("{COMMITTED}\n{header}\n{line}\n"), COMMITTED.lines().count() + 3)
                };
                let problem = only_problem(&text);
                assert_eq!((problem.place, problem.key), (Place::Line(number), format!("{dotted}.{given}")));
                assert!(
                    problem.message.contains("write both `access_key_file` and `secret_key_file`"),
                    "{}",
                    problem.message
                );
            }
        }
        loaded(&added_below("[store]", "access_key_file = \"a\"\nsecret_key_file = \"s\"").0);
    }
}

mod several_scopes {
    use super::*;

    #[test]
    fn overlapping_scopes_are_refused_at_the_later_prefix() {
        for prefix in ["synthetic/", "synthetic/raw/"] {
            let text = format!("{COMMITTED}{}", second_scope("raw", "heimdall-synthetic-iq", prefix));
            let problem = only_problem(&text);
            let line = COMMITTED.lines().count() + 5;
            assert_eq!((problem.place, problem.key.as_str()), (Place::Line(line), "scope[1].prefix"));
            let found = format!(
                "`{prefix}` overlaps the prefix `synthetic/` of scope `synthetic` in bucket `heimdall-synthetic-iq`"
            );
            assert!(problem.message.starts_with(&found), "{}", problem.message);
        }
        let outer = format!("{COMMITTED}{}", second_scope("all", "heimdall-synthetic-iq", "s/"))
            .replace("\"synthetic/", "\"s/synthetic/");
        assert_eq!(only_problem(&outer).key, "scope[1].prefix", "the later one may be the outer one");
    }

    #[test]
    fn scopes_that_only_look_alike_are_two() {
        let text = format!(
            "{COMMITTED}{}{}",
            second_scope("elsewhere", "another-bucket", "synthetic/"),
            second_scope("beside", "heimdall-synthetic-iq", "synthetic-raw/")
        );
        let names: Vec<String> = loaded(&text).scopes.into_iter().map(|scope| scope.name).collect();
        assert_eq!(names, ["synthetic", "elsewhere", "beside"], "in the order of the file");
    }

    #[test]
    fn names_must_differ_in_more_than_case() {
        for name in ["synthetic", "Synthetic"] {
            let problem = only_problem(&format!("{COMMITTED}{}", second_scope(name, "b", "p/")));
            assert_eq!(
                (problem.place, problem.key.as_str()),
                (Place::Line(COMMITTED.lines().count() + 3), "scope[1].name")
            );
            assert_eq!(problem.message, format!("`{name}` names two scopes; write another"));
        }
    }

    #[test]
    fn a_third_scope_is_compared_with_each_of_the_others() {
        let text = format!("{COMMITTED}{}{}", second_scope("b", "b", "p/"), second_scope("c", "b", "p/q/"));
        assert!(only_problem(&text).message.contains("of scope `b`"));
    }

    #[test]
    fn scopes_with_other_problems_are_compared_all_the_same() {
        let text = format!(
            "{COMMITTED}{}",
            second_scope("synthetic", "heimdall-synthetic-iq", "synthetic/").replace("{id}", "")
        );
        let keys: Vec<String> = problems_with(&text, &[]).into_iter().map(|problem| problem.key).collect();
        assert_eq!(keys, ["scope[1].patterns", "scope[1].name", "scope[1].prefix"]);
    }
}

mod all_at_once {
    use super::*;

    #[test]
    fn every_problem_is_told_with_its_line() {
        let text = "\
[store]
endpoint = \"ftp://store\"
regoin = \"eu\"

[ledger]
url = []

[[scope]]
name = \"a b\"
prefix = \"synthetic\"
patterns = [
  \"synthetic/\",
  \"synthetic/{id}\",
]

[[scope.live]]
table = \"datasets\"

[scope.policy]
grace = \"1h\"
min_sightings = 1
min_sighting_span = \"-2d\"

[scope.limits]
max_orphan_share = 7.0

[scope.schedule]
cron = \"never\"
timezone = \"Moon\"
";
        let pairs = [("ORPHAN_SWEEPER__REPORTS__KEPT", "400d"), ("ORPHAN_SWEEPER__SCOPE__NONE__BUCKET", "b")];
        let mut places: Vec<(String, String)> = problems_with(text, &pairs)
            .into_iter()
            .map(|problem| (problem.to_string().split(": ").next().expect("a place").to_owned(), problem.key))
            .collect();
        places.sort();
        let expected = [
            ("line 10", "scope[0].prefix"),
            ("line 17", "scope[0].live[0].table"),
            ("line 2", "store.endpoint"),
            ("line 20", "scope[0].policy.grace"),
            ("line 21", "scope[0].policy.min_sightings"),
            ("line 22", "scope[0].policy.min_sighting_span"),
            ("line 25", "scope[0].limits.max_orphan_share"),
            ("line 28", "scope[0].schedule.cron"),
            ("line 29", "scope[0].schedule.timezone"),
            ("line 3", "store.regoin"),
            ("line 6", "ledger.url"),
            ("line 8", "scope[0].bucket"),
            ("line 9", "scope[0].name"),
            ("variable ORPHAN_SWEEPER__REPORTS__KEPT", "reports.kept"),
            ("variable ORPHAN_SWEEPER__SCOPE__NONE__BUCKET", ""),
        ];
        assert_eq!(places, expected.map(|(place, key)| (place.to_owned(), key.to_owned())));
    }

    #[test]
    fn each_wrong_template_is_told_on_its_own_line() {
        let text = COMMITTED.replace(
            "[\"synthetic/{id}/\", \"synthetic/dataset-{id}/\"]",
            "[\n  \"synthetic/\",\n  \"synthetic/{id}/\",\n  \"x\",\n]",
        );
        let first = line_of(&text, "patterns");
        let lines: Vec<Place> = problems_with(&text, &[]).into_iter().map(|problem| problem.place).collect();
        assert_eq!(lines, [Place::Line(first + 1), Place::Line(first + 3)]);
    }

    #[test]
    fn every_syntax_error_is_told_with_its_line() {
        let problems = problems_with("[store]\nregion = \"x\"\nregion = \"y\"\n[store]\n[ledger]\npath = x\n", &[]);
        let mut lines: Vec<String> = problems
            .iter()
            .map(|problem| problem.to_string().split(": ").next().expect("a place").to_owned())
            .collect();
        lines.sort();
        assert_eq!(lines, ["line 3", "line 4", "line 6"], "{problems:?}");
    }

    #[test]
    fn the_error_lists_them_under_the_path() {
        let error = read_with("[store]\nendpoint = \"x\"\n", &[]).expect_err("wrong");
        let shown = error.to_string();
        assert!(
            shown.starts_with(&format!(
                "the configuration `{PATH}` has 2 problem(s):\n  line 2: `store.endpoint`: is no address"
            )),
            "{shown}"
        );
        assert!(shown.ends_with("\n  `scope`: is missing; write at least one `[[scope]]`"), "{shown}");
    }
}

/// The committed file with this below `[ledger]` in the place of the path.
fn without_path(lines: &str) -> String {
    let number = line_of(COMMITTED, "path");
    let mut text: Vec<&str> = COMMITTED.lines().collect();
    text[number - 1] = lines;
    text.join("\n")
}

mod environment {
    use super::*;

    #[test]
    fn a_variable_stands_over_the_file() {
        let config = overridden(&[
            ("ORPHAN_SWEEPER__STORE__ENDPOINT", "https://other:9000"),
            ("ORPHAN_SWEEPER__STORE__PATH_STYLE", "false"),
            ("ORPHAN_SWEEPER__STORE__REGION", "eu-central-1"),
            ("ORPHAN_SWEEPER__LEDGER__PATH", "/var/ledger"),
            ("ORPHAN_SWEEPER__SCOPE__SYNTHETIC__POLICY__GRACE", "9d"),
            ("ORPHAN_SWEEPER__SCOPE__SYNTHETIC__POLICY__MIN_SIGHTINGS", "4"),
            ("ORPHAN_SWEEPER__SCOPE__SYNTHETIC__LIMITS__MAX_ORPHAN_SHARE", "0.25"),
            ("ORPHAN_SWEEPER__SCOPE__SYNTHETIC__LIMITS__MAX_OBJECTS", "5_000"),
            ("ORPHAN_SWEEPER__SCOPE__SYNTHETIC__LIMITS__MAX_BYTES", "2GiB"),
            ("ORPHAN_SWEEPER__SCOPE__SYNTHETIC__PATTERNS", "[\"synthetic/x-{id}/\"]"),
            ("ORPHAN_SWEEPER__SCOPE__SYNTHETIC__LIVE__0__TABLE", "other.datasets"),
        ]);
        assert_eq!(config.store.endpoint.as_str(), "https://other:9000/");
        assert_eq!((config.store.path_style, config.store.region.as_str()), (false, "eu-central-1"));
        assert_eq!(config.ledger.file(), Some(Path::new("/var/ledger")));
        let scope = &config.scopes[0];
        assert_eq!((scope.policy.grace, scope.policy.min_sightings), (Grace(DAY * 9), 4));
        assert!((scope.limits.max_orphan_share - 0.25).abs() < f64::EPSILON);
        assert_eq!((scope.limits.max_objects, scope.limits.max_bytes), (5000, 2 << 30));
        assert_eq!(scope.templates(), ["synthetic/x-{id}/"]);
        assert_eq!(scope.live[0].table.to_string(), "other.datasets");
    }

    #[test]
    fn a_variable_may_stand_alone() {
        let text = COMMITTED.replace("[store]", "[ignored]").split("[ignored]").next().expect("a part").to_owned();
        let rest = &COMMITTED[COMMITTED.find("[database]").expect("a part")..];
        let pairs = [("ORPHAN_SWEEPER__STORE__ENDPOINT", "http://alone:1")];
        let config = read_with(&format!("{text}{rest}"), &pairs).expect("the file has no [store]");
        assert_eq!(config.store.endpoint.as_str(), "http://alone:1/");
    }

    #[test]
    fn parts_of_a_list_are_counted_from_0() {
        let config = overridden(&[
            ("ORPHAN_SWEEPER__SCOPE__SYNTHETIC__PATTERNS__1", "synthetic/y-{id}/"),
            ("ORPHAN_SWEEPER__SCOPE__0__BUCKET", "b"),
        ]);
        assert_eq!(config.scopes[0].templates(), ["synthetic/{id}/", "synthetic/y-{id}/"]);
        assert_eq!(config.scopes[0].bucket, "b");
        let problem = only_problem_of(&[("ORPHAN_SWEEPER__SCOPE__SYNTHETIC__LIVE__1__TABLE", "a.b")]);
        assert_eq!(
            problem.to_string(),
            "variable ORPHAN_SWEEPER__SCOPE__SYNTHETIC__LIVE__1__TABLE: no entry is called `1`; write the name of one that the file has"
        );
    }

    #[test]
    fn a_scope_is_found_by_its_name_in_any_case_and_with_underscores() {
        let text = COMMITTED.replace("name     = \"synthetic\"", "name = \"Synthetic-IQ\"");
        for name in [
            "ORPHAN_SWEEPER__SCOPE__SYNTHETIC_IQ__BUCKET",
            "ORPHAN_SWEEPER__scope__synthetic_iq__bucket",
            "ORPHAN_SWEEPER__Scope__Synthetic-IQ__Bucket",
        ] {
            let config = read_with(&text, &[(name, "other")]);
            let is_hyphenated = name.contains('-');
            assert_eq!(
                config.map(|config| config.scopes[0].bucket.clone()).ok(),
                (!is_hyphenated).then(|| "other".to_owned()),
                "{name}"
            );
        }
    }

    #[test]
    fn the_right_one_of_two_scopes_is_changed() {
        let text = format!("{COMMITTED}{}", second_scope("0", "b", "p/"));
        let config = read_with(&text, &[("ORPHAN_SWEEPER__SCOPE__0__BUCKET", "changed")]).expect("well formed");
        let buckets: Vec<&str> = config.scopes.iter().map(|scope| scope.bucket.as_str()).collect();
        assert_eq!(buckets, ["heimdall-synthetic-iq", "changed"], "a name counts before a number");
    }

    #[test]
    fn a_variable_that_could_mean_two_scopes_is_an_error() {
        let text = format!("{COMMITTED}{}{}", second_scope("a-b", "b", "p/"), second_scope("a_b", "b", "q/"));
        loaded(&text);
        let problems = problems_with(&text, &[("ORPHAN_SWEEPER__SCOPE__A_B__BUCKET", "changed")]);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].message.contains("several entries are called `a_b`"), "{}", problems[0].message);
    }

    #[test]
    fn an_unknown_name_is_an_error_that_says_it() {
        for (name, dotted, message) in [
            ("ORPHAN_SWEEPER__STROE__ENDPOINT", "stroe", "is no known key; write `store`"),
            ("ORPHAN_SWEEPER__STORE__ENDPONT", "store.endpont", "is no known key; write `endpoint`"),
            (
                "ORPHAN_SWEEPER__SCOPE__SYNTHETIC__POLICY__GRASE",
                "scope[0].policy.grase",
                "is no known key; write `grace`",
            ),
            (
                "ORPHAN_SWEEPER__SCOPE__OTHER__BUCKET",
                "",
                "no entry is called `other`; write the name of one that the file has",
            ),
            ("ORPHAN_SWEEPER__SCOPE__1__BUCKET", "", "no entry is called `1`; write the name of one that the file has"),
            (
                "ORPHAN_SWEEPER__STORE__REGION__NAME",
                "",
                "`name` stands below a text, which has no keys; check the name",
            ),
            (
                "ORPHAN_SWEEPER__STORE__PATH_STYLE__NAME",
                "",
                "`name` stands below true or false, which has no keys; check the name",
            ),
            (
                "ORPHAN_SWEEPER__",
                "",
                "is no known key; remove it, or use one of: store, database, ledger, reports, deletion, notify, serve, scope",
            ),
            (
                "ORPHAN_SWEEPER____STORE",
                "",
                "is no known key; remove it, or use one of: store, database, ledger, reports, deletion, notify, serve, scope",
            ),
        ] {
            let problem = only_problem_of(&[(name, "x")]);
            assert_eq!(
                (problem.place, problem.key.as_str(), problem.message.as_str()),
                (Place::Variable(name.into()), dotted, message)
            );
        }
    }

    #[test]
    fn what_is_wrong_in_a_variable_is_told_of_the_variable() {
        for (name, value, fragment) in [
            ("ORPHAN_SWEEPER__STORE__ENDPOINT", "ftp://x", "is no http or https address"),
            ("ORPHAN_SWEEPER__STORE__REGION", "", "is empty"),
            ("ORPHAN_SWEEPER__STORE", "x", "is a text; write it as a table, `[store]`"),
            ("ORPHAN_SWEEPER__SCOPE__SYNTHETIC__NAME", "a b", "cannot be part of a path"),
            ("ORPHAN_SWEEPER__SCOPE__SYNTHETIC__PREFIX", "synthetic", "does not end in `/`"),
            ("ORPHAN_SWEEPER__SCOPE__SYNTHETIC__PATTERNS", "[\"synthetic/\"]", "exactly once"),
            ("ORPHAN_SWEEPER__SCOPE__SYNTHETIC__PATTERNS", "[]", "is empty"),
            ("ORPHAN_SWEEPER__SCOPE__SYNTHETIC__IGNORE", "[1]", "is no list of texts"),
            ("ORPHAN_SWEEPER__SCOPE__SYNTHETIC__LIVE", "1", "is a whole number; write it as `[[scope.live]]`"),
            (
                "ORPHAN_SWEEPER__SCOPE__SYNTHETIC__LIVE__0",
                "1",
                "is a whole number; write it as a table, `[[scope.live]]`",
            ),
            (
                "ORPHAN_SWEEPER__SCOPE__SYNTHETIC__LIVE__0__EXPECTS_OBJECTS",
                "{ colum = \"x\" }",
                "is no known key; write `column`",
            ),
            ("ORPHAN_SWEEPER__SCOPE__SYNTHETIC__POLICY__GRACE", "1h", "below the floor of 24h"),
            ("ORPHAN_SWEEPER__SCOPE__SYNTHETIC__POLICY__GRACE", "7", "`7` has no unit"),
            ("ORPHAN_SWEEPER__SCOPE__SYNTHETIC__POLICY__GRACE", "-7d", "`-7d` is negative"),
            ("ORPHAN_SWEEPER__SCOPE__SYNTHETIC__POLICY__MIN_SIGHTINGS", "2", "below the floor of 3"),
            ("ORPHAN_SWEEPER__SCOPE__SYNTHETIC__LIMITS__MIN_OVERLAP", "50", "is no share"),
            ("ORPHAN_SWEEPER__SCOPE__SYNTHETIC__SCHEDULE__CRON", "0 0 31 2 *", "never comes"),
        ] {
            let problem = only_problem_of(&[(name, value)]);
            assert_eq!(problem.place, Place::Variable(name.into()), "{problem}");
            assert!(problem.message.contains(fragment), "{name}={value}: {}", problem.message);
        }
    }

    #[test]
    fn names_with_single_underscores_are_none_of_ours() {
        let config = overridden(&[
            ("ORPHAN_SWEEPER_SERVICE_HOST", "10.0.0.1"),
            ("ORPHAN_SWEEPER_SERVICE_PORT__HTTP", "80"),
            ("ORPHAN_SWEEPER_PORT", "tcp://10.0.0.1:80"),
            ("ORPHAN_SWEEPER_STORE__ENDPOINT", "http://never"),
            ("orphan_sweeper__STORE__ENDPOINT", "http://never"),
            ("X_ORPHAN_SWEEPER__STORE__ENDPOINT", "http://never"),
            ("AWS_ENDPOINT_URL", "http://never"),
        ]);
        assert_eq!(format!("{config:?}"), format!("{:?}", loaded(COMMITTED)));
    }

    #[test]
    fn a_text_that_reads_as_a_number_stays_a_text_where_one_is_wanted() {
        for bucket in ["123", "0123", "0xabc", "1_000", "1e5", "true", "1979-05-27", "inf", "\"quoted\"", "a # b"] {
            let expected = bucket.trim_matches('"');
            assert_eq!(overridden(&[("ORPHAN_SWEEPER__SCOPE__SYNTHETIC__BUCKET", bucket)]).scopes[0].bucket, expected);
        }
    }
}

mod places {
    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a folder")
    }

    #[test]
    fn relative_paths_resolve_against_the_folder_of_the_file() {
        let dir = folder();
        let path = dir.path().join("config.toml");
        let text = COMMITTED
            .replace(
                "[store]",
                "[store]\nca_file = \"ca.pem\"\naccess_key_file = \"s/a\"\nsecret_key_file = \"/abs/s\"",
            )
            .replace("[database]", "[database]\nurl_file = \"../url\"");
        std::fs::write(&path, text).expect("written");
        let config = load(Some(&path), &Variables::new()).expect("well formed");
        assert_eq!(config.ledger.file(), Some(&*dir.path().join("reports/ledger.sqlite3")));
        assert_eq!(config.reports_directory, dir.path().join("reports"));
        assert_eq!(config.stop_file, dir.path().join("reports/STOP"));
        assert_eq!(config.store.ca_file, Some(dir.path().join("ca.pem")));
        assert_eq!(config.store.credentials.access_key, Some(dir.path().join("s/a")));
        assert_eq!(config.store.credentials.secret_key.as_deref(), Some(Path::new("/abs/s")), "an absolute path stays");
        assert_eq!(config.database.url_file, Some(dir.path().join("../url")));
        let moved = [("ORPHAN_SWEEPER__LEDGER__PATH".to_owned(), "l".to_owned())].into();
        assert_eq!(
            load(Some(&path), &moved).expect("well formed").ledger.file(),
            Some(&*dir.path().join("l")),
            "from a variable too"
        );
    }

    #[test]
    fn a_file_named_without_a_folder_resolves_against_this_one() {
        let config = parse(COMMITTED, Path::new("config.toml"), &Variables::new()).expect("well formed");
        let expected = std::path::absolute("reports/ledger.sqlite3").expect("a working directory");
        assert_eq!(config.ledger.file(), Some(&*expected));
    }

    #[test]
    fn the_flag_stands_over_the_variable_and_a_named_file_must_be_there() {
        let dir = folder();
        let file = |name: &str, region: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, COMMITTED.replace("us-east-1", region)).expect("written");
            path
        };
        let (flagged, varied) = (file("flag.toml", "flag"), file("variable.toml", "variable"));
        let variables = |path: &Path| variables(&[("ORPHAN_SWEEPER_CONFIG", path.to_str().expect("plain"))]);
        let region = |flag: Option<&Path>, path: &Path| {
            load(flag, &variables(path)).map(|config| config.store.region).map_err(|error| error.to_string())
        };
        assert_eq!(region(Some(&flagged), &varied).as_deref(), Ok("flag"));
        assert_eq!(region(None, &varied).as_deref(), Ok("variable"));
        let absent = dir.path().join("absent.toml");
        let unreadable = Err(format!("failed to read the configuration `{}`", absent.display()));
        assert_eq!(region(None, &absent), unreadable, "and no other is taken in its place");
        assert_eq!(region(Some(&absent), &varied), unreadable);
        std::fs::write(&absent, [0xff, 0xfe]).expect("written");
        assert_eq!(region(None, &absent), unreadable, "what is not text");
    }

    #[test]
    fn an_empty_variable_names_no_file() {
        let variables = variables(&[("ORPHAN_SWEEPER_CONFIG", "")]);
        // The tests run in the repository's folder, which has the committed file.
        let expected = Path::new(env!("CARGO_MANIFEST_DIR")).join("reports/ledger.sqlite3");
        assert_eq!(
            load(None, &variables).expect("the committed file").ledger.file(),
            Some(&*expected),
            "absolute: the next command may start elsewhere"
        );
    }
}

mod schedules {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn scope(cron: &str, timezone: &str) -> Scope {
        let (text, _) = with_value("cron", &format!("\"{cron}\""));
        let text = text.replace("timezone = \"UTC\"", &format!("timezone = \"{timezone}\""));
        loaded(&text).scopes.remove(0)
    }

    #[test]
    fn a_plan_lives_for_two_intervals_where_that_is_longer() {
        let now = at("2026-11-23T12:00:00Z");
        for (cron, days) in [("0 3 * * *", 3), ("0 3 * * MON", 14), ("0 3 * * MON-FRI", 6), ("0 3 1 * *", 62)] {
            assert_eq!(scope(cron, "UTC").plan_lifetime(now), DAY * days, "{cron}");
        }
        let unscheduled = COMMITTED.split("[scope.schedule]").next().expect("a part");
        assert_eq!(loaded(unscheduled).scopes[0].plan_lifetime(now), DAY * 3);
        let (long, _) = with_value("plan_expires", "\"30d\"");
        assert_eq!(loaded(&long).scopes[0].plan_lifetime(now), DAY * 30);
    }

    #[test]
    fn the_longest_interval_is_one_of_the_calendars_own_time_zone() {
        let interval = |timezone| {
            scope("0 3 * * *", timezone).schedule.expect("written").longest_interval(at("2026-10-20T00:00:00Z"))
        };
        assert_eq!(interval("UTC"), DAY);
        assert_eq!(interval("Europe/Berlin"), DAY + Duration::from_secs(3600), "the night that has 25 hours");
    }

    #[test]
    fn six_fields_begin_with_seconds() {
        let schedule = scope("*/10 * * * * *", "UTC").schedule.expect("written");
        assert_eq!(schedule.longest_interval(at("2026-11-23T12:00:00Z")), Duration::from_secs(10));
    }
}

#[test]
fn identifiers_are_quoted_for_a_statement() {
    let table = TableName { schema: "a\"b".into(), table: "C d".into() };
    assert_eq!((table.quoted().as_str(), table.to_string().as_str()), ("\"a\"\"b\".\"C d\"", "a\"b.C d"));
}

mod secret {
    use super::*;

    /// Everything that could ever be shown of an error.
    fn shown(error: &(dyn Error + 'static)) -> String {
        let mut text = format!("{error:?} {error:#?}");
        let mut next = Some(error);
        while let Some(error) = next {
            text.push_str(&format!("\n{error} {error:#}"));
            next = error.source();
        }
        text
    }

    fn with_files(lines: &str, below: &str) -> Config {
        loaded(&COMMITTED.replacen(&format!("\n{below}"), &format!("\n{below}\n{lines}"), 1))
    }

    fn written(dir: &tempfile::TempDir, name: &str, text: &str) -> String {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.to_str().expect("plain").to_owned()
    }

    fn pair(credentials: &secrets::StoreCredentials) -> (String, String, Option<String>) {
        let exposed = |secret: &secrecy::SecretString| secret.expose_secret().to_owned();
        (
            exposed(&credentials.access_key),
            exposed(&credentials.secret_key),
            credentials.session_token.as_ref().map(exposed),
        )
    }

    fn database(config: &Config, pairs: &[(&str, &str)]) -> Result<secrets::DatabaseUrl, SecretError> {
        secrets::database(config, &variables(pairs))
    }

    #[test]
    fn store_credentials_come_from_the_environment_or_from_files() {
        let plain = loaded(COMMITTED);
        let aws = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "key"), ("AWS_SESSION_TOKEN", "token")];
        let found = secrets::store(&plain, &variables(&aws)).expect("complete");
        assert_eq!(pair(&found), ("id".into(), "key".into(), Some("token".into())));
        let found = secrets::store(&plain, &variables(&aws[..2])).expect("complete");
        assert_eq!(pair(&found), ("id".into(), "key".into(), None));
        let dir = tempfile::tempdir().expect("a folder");
        let (access, secret) = (written(&dir, "a", " file-id\n"), written(&dir, "s", "file-key\r\n"));
        let files = with_files(&format!("access_key_file = \"{access}\"\nsecret_key_file = \"{secret}\""), "[store]");
        let found = secrets::store(&files, &variables(&aws)).expect("complete");
        assert_eq!(
            pair(&found),
            ("file-id".into(), "file-key".into(), None),
            "files stand over the environment, without its token"
        );
        std::fs::write(&access, "new-id").expect("written");
        assert_eq!(
            pair(&secrets::store(&files, &Variables::new()).expect("complete")).0,
            "new-id",
            "read anew each time"
        );
    }

    #[test]
    fn deletion_has_a_pair_of_its_own_or_the_first() {
        let plain = loaded(COMMITTED);
        let both = [
            ("AWS_ACCESS_KEY_ID", "id"),
            ("AWS_SECRET_ACCESS_KEY", "key"),
            ("ORPHAN_SWEEPER_DELETE_ACCESS_KEY_ID", "delete-id"),
            ("ORPHAN_SWEEPER_DELETE_SECRET_ACCESS_KEY", "delete-key"),
            ("ORPHAN_SWEEPER_DELETE_SESSION_TOKEN", "delete-token"),
        ];
        let found = secrets::store_for_deletion(&plain, &variables(&both)).expect("complete");
        assert_eq!(pair(&found), ("delete-id".into(), "delete-key".into(), Some("delete-token".into())));
        assert_eq!(
            pair(&secrets::store(&plain, &variables(&both)).expect("complete")).0,
            "id",
            "reading never takes the second"
        );
        assert_eq!(pair(&secrets::store_for_deletion(&plain, &variables(&both[..2])).expect("complete")).0, "id");
        let half = secrets::store_for_deletion(&plain, &variables(&both[..3])).expect_err("half a pair is no pair");
        assert!(half.to_string().contains("only one of the two store credential variables is set"), "{half}");
        let dir = tempfile::tempdir().expect("a folder");
        let (access, secret) = (written(&dir, "a", "f-id"), written(&dir, "s", "f-key"));
        let lines = format!("delete.access_key_file = \"{access}\"\ndelete.secret_key_file = \"{secret}\"");
        let files = with_files(&lines, "[store]").store.delete_credentials;
        let config = Config { store: Store { delete_credentials: files, ..plain.store.clone() }, ..plain };
        assert_eq!(pair(&secrets::store_for_deletion(&config, &variables(&both)).expect("complete")).0, "f-id");
        assert_eq!(pair(&secrets::store(&config, &variables(&both)).expect("complete")).0, "id");
    }

    #[test]
    fn what_is_missing_says_what_to_set() {
        let plain = loaded(COMMITTED);
        let none = secrets::store(&plain, &variables(&[("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", "")]))
            .expect_err("empty is unset");
        assert!(
            none.to_string().contains("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or `store.access_key_file`"),
            "{none}"
        );
        for half in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
            let error = secrets::store(&plain, &variables(&[(half, CANARY)])).expect_err("half a pair");
            assert!(matches!(error, SecretError::Missing(_)), "{error}");
        }
        let none = database(&plain, &[("DATABASE_URL", "")]).expect_err("none");
        assert!(none.to_string().contains("set ORPHAN_SWEEPER_DATABASE_URL, or `database.url_file`"), "{none}");
        let dir = tempfile::tempdir().expect("a folder");
        let (empty, absent) = (written(&dir, "empty", " \n"), dir.path().join("absent"));
        let config = with_files(&format!("url_file = \"{empty}\""), "[database]");
        assert_eq!(
            database(&config, &[]).expect_err("empty").to_string(),
            "the file that `database.url_file` names is empty; write the secret into it"
        );
        let config = with_files(&format!("url_file = \"{}\"", absent.display()), "[database]");
        let error = database(&config, &[("DATABASE_URL", "sqlite:///x")]).expect_err("absent, whatever else there is");
        assert_eq!(error.to_string(), "failed to read the file that `database.url_file` names");
        assert!(error.source().is_some());
        let misplaced = with_files(&format!("url_file = \"postgres://u:{CANARY}@h/d\""), "[database]");
        let error = database(&misplaced, &[]).expect_err("no such file");
        assert!(
            !crate::run::failure::chain(&error).contains(CANARY) && !format!("{error:?}").contains(CANARY),
            "{error:?}"
        );
    }

    #[test]
    fn two_addresses_that_differ_are_an_error_and_two_alike_are_one() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = written(&dir, "url", "postgres://localhost/file\n");
        let (plain, files) = (loaded(COMMITTED), with_files(&format!("url_file = \"{file}\""), "[database]"));
        let (own, common) = ("ORPHAN_SWEEPER_DATABASE_URL", "DATABASE_URL");
        let (this, that) = ("postgres://localhost/this", "postgres://localhost/that");
        let differ =
            |config: &Config, pairs: &[(&str, &str)]| database(config, pairs).expect_err("two that differ").to_string();
        let named = |one: &str, other: &str| format!("{one} and {other} name different addresses; keep one");
        assert_eq!(differ(&plain, &[(own, this), (common, that)]), named(own, common));
        assert_eq!(differ(&files, &[(own, this)]), named(own, "database.url_file"));
        assert_eq!(differ(&files, &[(common, this)]), named("database.url_file", common));
        assert_eq!(differ(&files, &[(own, "postgres://localhost/file"), (common, that)]), named(own, common));
        for pairs in [
            &[(own, this)][..],
            &[(common, this)],
            &[(own, this), (common, " postgres://localhost/this\n")],
            &[(own, this), (common, "")],
        ] {
            assert_eq!(database(&plain, pairs).expect("one").url.expose_secret(), this);
        }
        assert_eq!(
            database(&files, &[(own, "postgres://localhost/file")]).expect("one").shown,
            "postgres://localhost:5432/file"
        );
    }

    #[test]
    fn the_ledger_is_a_file_unless_an_address_is_given() {
        let dir = tempfile::tempdir().expect("a folder");
        let shown = |text: &str, pairs: &[(&str, &str)]| {
            let config = read_with(text, pairs).expect("well formed");
            secrets::ledger(&config, &variables(pairs)).map(|place| place.shown()).map_err(|error| error.to_string())
        };
        assert_eq!(shown(COMMITTED, &[]).as_deref(), Ok("/etc/orphan-sweeper/reports/ledger.sqlite3"));
        assert_eq!(shown(&without_path(""), &[]).as_deref(), Ok("/etc/orphan-sweeper/reports/ledger.sqlite3"));
        let (this, that) = ("postgres://u:p@localhost/this", "postgres://u:p@localhost/that");
        let named = Ok("postgres://localhost:5432/this".to_owned());
        let own = ("ORPHAN_SWEEPER_LEDGER_URL", this);
        assert_eq!(shown(&without_path(&format!("url = \"{this}\"")), &[]), named);
        assert_eq!(shown(&without_path(""), &[own]), named);
        assert_eq!(shown(&without_path(&format!("url = \"{this}\"")), &[own]), named, "two alike are one");
        let file = written(&dir, "url", &format!("{this}\n"));
        assert_eq!(shown(&without_path(&format!("url_file = \"{file}\"")), &[]), named);
        assert_eq!(
            shown(&without_path(&format!("url = \"{that}\"")), &[own]),
            Err("ORPHAN_SWEEPER_LEDGER_URL and ledger.url name different addresses; keep one".into())
        );
        for (url, wrong) in [
            ("sqlite:///x", "is not postgres"),
            ("mysql://h/d", "is neither postgres nor sqlite"),
            ("postgres://u:1/b@h/d", "has a `/`, `?`, `#` or `@` in its password that is not percent-encoded"),
        ] {
            let said = shown(&without_path(""), &[("ORPHAN_SWEEPER_LEDGER_URL", url)]).expect_err("wrong");
            assert!(
                said.starts_with(&format!(
                    "the ledger's address from ORPHAN_SWEEPER_LEDGER_URL {wrong}; write `postgres://"
                )),
                "{said}"
            );
        }
    }

    #[test]
    fn a_ledger_elsewhere_without_verified_tls_gets_a_warning_of_its_own() {
        let warning = |url: &str| {
            let pairs = [("ORPHAN_SWEEPER_LEDGER_URL", url)];
            let config = read_with(&without_path(""), &pairs).expect("well formed");
            match secrets::ledger(&config, &variables(&pairs)).expect("an address") {
                LedgerPlace::Database(url) => url.warning,
                LedgerPlace::File(path) => panic!("{path:?}"),
            }
        };
        let said = warning("postgres://u:p@db.example/d").expect("a warning");
        assert!(said.contains("`postgres://db.example:5432/d`") && said.contains("sslmode=verify-full"), "{said}");
        assert_eq!(warning("postgres://u:p@db.example/d?sslmode=verify-full"), None);
        assert_eq!(warning("postgres://u:p@localhost/d"), None);
    }

    #[test]
    fn one_role_for_the_ledger_and_the_live_rows_gets_a_warning() {
        let shared = |ledger: &str, live: &str| {
            let pairs = [("ORPHAN_SWEEPER_LEDGER_URL", ledger), ("ORPHAN_SWEEPER_DATABASE_URL", live)];
            let config = read_with(&without_path(""), &pairs).expect("well formed");
            let LedgerPlace::Database(ledger) = secrets::ledger(&config, &variables(&pairs)).expect("an address")
            else {
                panic!("a file");
            };
            secrets::shared_role(&ledger, &database(&config, &pairs).expect("an address"))
        };
        let same = shared("postgres://u:p@localhost/d", "postgres://u:q@localhost:5432/d?sslmode=disable");
        assert!(same.is_some_and(|said| said.contains("give it a role of its own") && !said.contains("u:p")));
        assert_eq!(shared("postgres://u:p@localhost/d", "postgres://v:p@localhost/d"), None);
        assert_eq!(shared("postgres://u:p@localhost/d", "postgres://u:p@localhost/e"), None);
        assert_eq!(shared("postgres://u:p@localhost/d", "sqlite:///d"), None);
    }

    #[test]
    fn the_address_of_a_ledger_is_shown_to_nobody() {
        let url = format!("postgres://user:{CANARY}@db.example/d?password={CANARY}");
        for (text, pairs) in [
            (without_path(&format!("url = \"{url}\"")), vec![]),
            (without_path(""), vec![("ORPHAN_SWEEPER_LEDGER_URL", url.as_str())]),
        ] {
            let config = read_with(&text, &pairs).expect("well formed");
            let place = secrets::ledger(&config, &variables(&pairs)).expect("an address");
            let said = format!("{config:?} {config:#?} {place:?} {place:#?} {}", place.shown());
            assert!(!said.contains(CANARY), "{said}");
        }
    }

    #[test]
    fn both_backends_are_read() {
        let plain = loaded(COMMITTED);
        for (url, backend, shown) in [
            (
                "postgres://u:p@127.0.0.1:5433/heimdall?sslmode=disable",
                Backend::Postgres,
                "postgres://127.0.0.1:5433/heimdall",
            ),
            ("postgresql://u@localhost/heimdall", Backend::Postgres, "postgres://localhost:5432/heimdall"),
            ("postgres://localhost/a?host=/run/pg&port=5&dbname=b", Backend::Postgres, "postgres:///run/pg:5/b"),
            ("sqlite:///var/catalogue.sqlite3?mode=ro", Backend::Sqlite, "sqlite:///var/catalogue.sqlite3"),
            ("sqlite:catalogue.sqlite3", Backend::Sqlite, "sqlite://catalogue.sqlite3"),
        ] {
            let found = database(&plain, &[("DATABASE_URL", url)]).expect(url);
            assert_eq!((found.backend, found.shown.as_str(), found.url.expose_secret()), (backend, shown, url));
        }
        for (url, found) in [
            ("heimdall", "has no scheme"),
            ("mysql://h/d", "is neither postgres nor sqlite"),
            ("postgres://h:port/d", "cannot be read"),
            ("postgres://h/d?sslmode=perhaps", "has an option that cannot be read"),
        ] {
            let error = database(&plain, &[("DATABASE_URL", url)]).expect_err(url).to_string();
            assert!(
                error.starts_with(&format!("the database's address from DATABASE_URL {found}; write `postgres://")),
                "{error}"
            );
        }
    }

    #[test]
    fn a_database_elsewhere_without_verified_tls_gets_a_warning() {
        let plain = loaded(COMMITTED);
        let warning = |url: &str| database(&plain, &[("ORPHAN_SWEEPER_DATABASE_URL", url)]).expect(url).warning;
        for url in [
            "postgres://u:p@db.example/d",
            "postgres://u:p@10.0.0.5/d?sslmode=require",
            "postgres://u:p@db.example/d?sslmode=verify-ca&sslrootcert=/ca.pem",
            "postgres://u:p@db.example/d?sslmode=verify-full&sslmode=disable",
            "postgres://u:p@localhost/d?hostaddr=10.0.0.5",
            "postgres://u:p@localhost/d?host=db.example",
            "postgres://u:p@localhost/d?host=localhost&host=db.example",
            "postgres://u:p@localhost.example/d",
        ] {
            let warning = warning(url).unwrap_or_else(|| panic!("no warning for {url}"));
            assert!(
                warning.contains("add `?sslmode=verify-full&sslrootcert=/path/ca.pem` to its address"),
                "{warning}"
            );
            assert!(!warning.contains("u:p"), "{warning}");
        }
        for url in [
            "postgres://u:p@db.example/d?sslmode=verify-full&sslrootcert=/ca.pem",
            "postgres://u:p@db.example/d?ssl-mode=verify-full",
            "postgres://u:p@localhost/d",
            "postgres://u:p@LOCALHOST/d",
            "postgres://u:p@127.0.0.1/d",
            "postgres://u:p@127.1.2.3/d",
            "postgres://u:p@[::1]:5432/d",
            "postgres://u:p@db.example/d?host=/run/postgresql",
            "postgres://u:p@%2Frun%2Fpostgresql/d",
            "sqlite:///d",
        ] {
            assert_eq!(warning(url), None, "{url}");
        }
        let named = warning("postgres://u:p@db.example/d").expect("a warning");
        assert!(named.starts_with("the database on `db.example` is reached without verified TLS"), "{named}");
        let redirected = warning("postgres://u:p@localhost/d?hostaddr=10.0.0.5").expect("a warning");
        assert!(
            redirected.starts_with("the database on `10.0.0.5` is"),
            "it names where it really leads: {redirected}"
        );
    }

    #[test]
    fn no_secret_is_ever_shown() {
        let dir = tempfile::tempdir().expect("a folder");
        let files: Vec<String> = ["a", "s", "da", "ds"].iter().map(|name| written(&dir, name, CANARY)).collect();
        let url = format!("postgres://user:{CANARY}@db.example:5432/heimdall?sslmode=require&password={CANARY}");
        let url_file = written(&dir, "url", &url);
        let text = COMMITTED
            .replace("[store]", &format!("[store]\naccess_key_file = \"{}\"\nsecret_key_file = \"{}\"", files[0], files[1]))
            .replace(
                "[database]",
                &format!("[store.delete]\naccess_key_file = \"{}\"\nsecret_key_file = \"{}\"\n[database]\nurl_file = \"{url_file}\"", files[2], files[3]),
            );
        let environment = [
            ("AWS_ACCESS_KEY_ID", CANARY),
            ("AWS_SECRET_ACCESS_KEY", CANARY),
            ("AWS_SESSION_TOKEN", CANARY),
            ("ORPHAN_SWEEPER_DELETE_ACCESS_KEY_ID", CANARY),
            ("ORPHAN_SWEEPER_DELETE_SECRET_ACCESS_KEY", CANARY),
        ];
        let mut all = String::new();
        for config in [loaded(&text), loaded(COMMITTED)] {
            let variables = variables(&[&environment[..], &[("ORPHAN_SWEEPER_DATABASE_URL", url.as_str())]].concat());
            let store = secrets::store(&config, &variables).expect("complete");
            let delete = secrets::store_for_deletion(&config, &variables).expect("complete");
            let database = secrets::database(&config, &variables).expect("complete");
            assert_eq!(
                (store.secret_key.expose_secret(), delete.access_key.expose_secret()),
                (CANARY, CANARY),
                "the canary is there to be seen"
            );
            assert!(database.url.expose_secret().contains(CANARY));
            all.push_str(&format!(
                "{config:?} {store:?} {delete:?} {database:?} {database:#?} {} {:?}",
                database.shown, database.warning
            ));
        }
        assert!(!all.contains(CANARY), "{all}");
    }

    #[test]
    fn no_error_about_a_secret_repeats_it() {
        let plain = loaded(COMMITTED);
        for url in [
            CANARY.to_owned(),
            format!("{CANARY}://user@host/d"),
            format!("mysql://user:{CANARY}@host/d"),
            format!("postgres://user:{CANARY}@host:port/d"),
            format!("postgres://user:{CANARY}@[::1/d"),
            format!("postgres://user:{CANARY}/more@host/d"),
            format!("postgres://user:1/{CANARY}@host/d"),
            format!("postgres://user:1?{CANARY}@host/d"),
            format!("postgres://user:1#{CANARY}@host/d"),
            format!("postgres://user:{CANARY}@host/d?sslmode={CANARY}"),
            format!("postgres://user@host/d?port={CANARY}"),
            format!("postgres://user:{CANARY}@ho st/d"),
        ] {
            for name in ["ORPHAN_SWEEPER_DATABASE_URL", "DATABASE_URL"] {
                match database(&plain, &[(name, &url)]) {
                    Ok(found) => panic!("{url} is read as {found:?}"),
                    Err(error) => assert!(!shown(&error).contains(CANARY), "{url}: {}", shown(&error)),
                }
            }
        }
        let pairs = [
            ("ORPHAN_SWEEPER_DATABASE_URL", format!("postgres://u:{CANARY}1@h/d")),
            ("DATABASE_URL", format!("postgres://u:{CANARY}2@h/d")),
        ];
        let error =
            database(&plain, &pairs.each_ref().map(|(name, url)| (*name, url.as_str()))).expect_err("they differ");
        assert!(!shown(&error).contains(CANARY));
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("binary");
        std::fs::write(&path, [CANARY.as_bytes(), &[0xff]].concat()).expect("written");
        let config = with_files(&format!("url_file = \"{}\"", path.display()), "[database]");
        assert!(!shown(&database(&config, &[]).expect_err("not text")).contains(CANARY));
    }

    #[test]
    fn no_problem_of_the_configuration_repeats_a_secret() {
        let edit = |from: &str, to: String| COMMITTED.replacen(from, &to, 1);
        let endpoint = "\"http://127.0.0.1:9000\"";
        for text in [
            edit(endpoint, format!("\"http://user:{CANARY}@host\"")),
            edit(endpoint, format!("\"http://{CANARY}@host\"")),
            edit(endpoint, format!("\"user:{CANARY}@host:9000\"")),
            edit(endpoint, format!("\"http://user:{CANARY}@host:port\"")),
            edit(endpoint, format!("\"http://user:{CANARY}@ho st\"")),
            edit(endpoint, format!("\"http://host/?token={CANARY}\"")),
            edit(endpoint, format!("\"http://host/{CANARY}\"")),
            edit(endpoint, format!("http://user:{CANARY}@host")),
            edit(endpoint, format!("\"http://user:{CANARY}@host")),
            edit("[store]", format!("[store]\nsecret_key = \"{CANARY}\"")),
            edit("[database]", format!("[database]\nurl = \"postgres://user:{CANARY}@host/d\"")),
            edit("[database]", format!("[database]\nurl = postgres://user:{CANARY}@host/d")),
            edit("[database]", format!("database = \"postgres://user:{CANARY}@host/d\"")),
            edit("path = ", format!("url = \"postgres://user:{CANARY}@host/d\"\npath = ")),
        ] {
            assert!(text.contains(CANARY));
            match read_with(&text, &[]) {
                Ok(_) => panic!("nothing wrong in\n{text}"),
                Err(error) => assert!(!shown(&error).contains(CANARY), "{}", shown(&error)),
            }
        }
        for name in [
            "ORPHAN_SWEEPER__STORE__SECRET_KEY",
            "ORPHAN_SWEEPER__DATABASE__URL",
            "ORPHAN_SWEEPER__DATABASE",
            "ORPHAN_SWEEPER__LEDGER__URL",
            "ORPHAN_SWEEPER__STORE__ENDPOINT",
        ] {
            let url = format!("postgres://user:{CANARY}@host/d");
            let error = read_with(COMMITTED, &[(name, &url)]).expect_err("wrong");
            assert!(!shown(&error).contains(CANARY), "{}", shown(&error));
        }
    }
}

/// Lines that come close to a configuration, in any order.
fn nearly_toml() -> impl Strategy<Value = String> {
    let lines: Vec<String> = COMMITTED.lines().map(str::to_owned).collect();
    let value = prop_oneof![
        "\\PC{0,12}",
        "[0-9._e+-]{0,12}",
        Just("[[[]]]".to_owned()),
        Just("{ a = 1 }".to_owned()),
        "\"[0-9smhdMy ]{0,24}\""
    ];
    let key = "[a-z_]{1,8}|grace|endpoint|patterns|cron|max_bytes|min_overlap|scope";
    let line = prop_oneof![
        4 => proptest::sample::select(lines),
        1 => (key, value).prop_map(|(key, value)| format!("{key} = {value}")),
        1 => Just("[[scope]]".to_owned()),
    ];
    proptest::collection::vec(line, 0..60).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in any::<String>()) {
        let _ = read_with(&text, &[]);
    }

    #[test]
    fn nearly_a_configuration_never_panics_and_never_fails_without_a_problem(text in nearly_toml()) {
        match read_with(&text, &[]) {
            Ok(config) => prop_assert!(!config.scopes.is_empty()),
            Err(ConfigError::Wrong { problems, .. }) => {
                prop_assert!(!problems.is_empty());
                let lines = text.lines().count().max(1) + 1;
                prop_assert!(problems.iter().all(|problem| !matches!(problem.place, Place::Line(line) if line == 0 || line > lines)));
            }
            Err(other) => prop_assert!(false, "{other}"),
        }
    }

    #[test]
    fn arbitrary_variables_never_panic(name in "[A-Z0-9_]{0,30}|STORE__ENDPOINT|SCOPE__SYNTHETIC__POLICY__GRACE|SCOPE__0__[A-Z_]{0,9}", value in any::<String>()) {
        let _ = read_with(COMMITTED, &[(&format!("ORPHAN_SWEEPER__{name}"), &value)]);
    }

    #[test]
    fn no_duration_that_is_accepted_is_a_grace_below_the_floor(value in "[0-9]{1,3}(ns|us|ms|s|m|h|d|w)( [0-9]{1,3}(s|m|h))?") {
        if let Ok(config) = read_with(&with_value("grace", &format!("\"{value}\"")).0, &[]) {
            prop_assert!(config.scopes[0].policy.grace.0 >= Grace::FLOOR);
        }
    }

    #[test]
    fn arbitrary_addresses_never_panic(url in prop_oneof![any::<String>(), "(postgres|sqlite)://[ -~]{0,40}"]) {
        let _ = secrets::database(&loaded(COMMITTED), &variables(&[("DATABASE_URL", &url)]));
    }
}

proptest! {
    // Each case reads twenty configurations.
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn arbitrary_values_never_panic(value in prop_oneof!["\\PC{0,24}", "[0-9]{0,25}(ns|s|h|d|w|M|y)?", "[0-9.]{0,9}(kB|GiB|EB)?"]) {
        let quoted = toml::Value::String(value.clone()).to_string();
        for key in ["endpoint", "keep", "name", "prefix", "table", "grace", "plan_expires", "max_bytes", "cron", "timezone"] {
            let _ = read_with(&with_value(key, &quoted).0, &[]);
            let _ = read_with(&with_value(key, &value).0, &[]);
        }
    }
}

mod quarantine {
    use super::*;
    use crate::config::Disposal;

    fn with(text: &str) -> String {
        let text = format!("[scope.quarantine]\n{text}\n\n[scope.limits]");
        COMMITTED.replacen("[scope.limits]", &text, 1)
    }

    fn wrong(text: &str) -> Problem {
        let text = with(text);
        let problem = only_problem(&text);
        assert!(problem.key.starts_with("scope[0].quarantine."), "{problem}");
        problem
    }

    #[test]
    fn nothing_is_copied_aside_by_default() {
        let config = loaded(COMMITTED);
        let scope = &config.scopes[0];
        assert_eq!(scope.policy.disposal, Disposal::Delete);
        assert_eq!(
            (scope.quarantine.bucket.as_str(), scope.quarantine.prefix.as_str()),
            (&*scope.bucket, "quarantine/")
        );
        assert_eq!(scope.quarantine.keep, DAY * 30);
    }

    #[test]
    fn what_is_written_is_meant() {
        let text = with("prefix = \"aside/x/\"\nbucket = \"spare\"\nkeep = \"3d\"");
        let config = loaded(&text);
        let quarantine = &config.scopes[0].quarantine;
        assert_eq!(
            (quarantine.bucket.as_str(), quarantine.prefix.as_str(), quarantine.keep),
            ("spare", "aside/x/", DAY * 3)
        );
        let config = overridden(&[("ORPHAN_SWEEPER__SCOPE__SYNTHETIC__POLICY__DISPOSAL", "quarantine")]);
        assert_eq!(config.scopes[0].policy.disposal, Disposal::Quarantine);
    }

    #[test]
    fn a_quarantine_overlaps_no_scope_of_its_bucket() {
        for prefix in ["synthetic/", "synthetic/quarantine/"] {
            let problem = wrong(&format!("prefix = \"{prefix}\""));
            assert!(problem.message.contains("overlaps the prefix `synthetic/` of scope `synthetic`"), "{problem}");
        }
        // The other way round, in another scope, and by the default alone.
        let below = second_scope("b", "heimdall-synthetic-iq", "quarantine/deep/");
        let text = format!("{}{below}", with("keep = \"3d\""));
        assert!(only_problem(&text).message.contains("overlaps the prefix `quarantine/deep/` of scope `b`"));
        let text = format!("{COMMITTED}{below}");
        assert_eq!(loaded(&text).scopes.len(), 2, "nothing is ever copied there");
        let disposal = [("ORPHAN_SWEEPER__SCOPE__SYNTHETIC__POLICY__DISPOSAL", "quarantine")];
        assert_eq!(problems_with(&text, &disposal).len(), 1);
        // In another bucket it may be called as it likes.
        assert_eq!(loaded(&with("bucket = \"spare\"\nprefix = \"synthetic/\"")).scopes[0].quarantine.bucket, "spare");
    }

    #[test]
    fn a_prefix_that_stores_refuse_or_rename_is_refused() {
        for (prefix, message) in [
            ("quarantine", "write \"quarantine/\""),
            ("/quarantine/", "has an empty, `.` or `..` part"),
            ("a//b/", "has an empty, `.` or `..` part"),
            ("a/../b/", "has an empty, `.` or `..` part"),
            ("/", "has an empty, `.` or `..` part"),
        ] {
            let problem = wrong(&format!("prefix = \"{prefix}\""));
            assert!(problem.message.contains(message), "{problem}");
        }
    }

    #[test]
    fn copies_stay_for_a_day_at_least() {
        assert!(wrong("keep = \"23h\"").message.contains("below the floor of 24h"));
        let switch = [("ORPHAN_SWEEPER__SCOPE__SYNTHETIC__POLICY__UNSAFE_SHORT_GRACE", "true")];
        assert!(read_with(&with("keep = \"1h\""), &switch).is_ok());
    }

    #[test]
    fn a_disposal_is_one_of_two() {
        let (text, number) = added_below("[scope.policy]", "disposal = \"shred\"");
        let problem = only_problem(&text);
        assert_eq!(problem.place, Place::Line(number));
        assert!(problem.message.contains("write \"delete\" or \"quarantine\""), "{problem}");
    }
}

mod purge {
    use super::*;

    fn with(lines: &str) -> String {
        format!("{COMMITTED}\n[scope.purge]\n{lines}\n")
    }

    #[test]
    fn without_the_section_there_is_no_way_to_change_a_row() {
        assert!(loaded(COMMITTED).scopes[0].purge.is_none());
    }

    #[test]
    fn an_empty_section_is_about_the_platform_as_it_is() {
        let config = loaded(&with(""));
        let purge = config.scopes[0].purge.as_ref().expect("a purge");
        assert_eq!(purge.job_type, "synthetic_generation");
        assert_eq!(purge.ended_statuses, ["completed", "failed", "cancelled"]);
        assert_eq!(purge.types_with_objects, ["iq_raw"]);
        assert!(purge.deletes_datasets && purge.cancel_webhook.is_none() && purge.url_file.is_none());
        assert_eq!(purge.dependents.len(), 2);
        // What the committed file shows as the defaults are the defaults.
        for (key, statement) in purge.statements.named() {
            let is_shown = |line: &str| {
                line.strip_prefix("# ")
                    .and_then(|line| line.split_once('='))
                    .is_some_and(|(name, value)| name.trim() == key && value.trim() == format!("\"{statement}\""))
            };
            assert!(COMMITTED.lines().any(is_shown), "{key}");
            assert!(statement.contains("heimdall.") && statement.contains("$1"), "{key}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_a_problem() {
        for (lines, key, message) in [
            ("cancel_webhook = \"ftp://canary@host/\"", "cancel_webhook", "is no http or https address"),
            ("dependents = [\"heimdall.samples\"]", "dependents", "`heimdall.samples` is no column"),
            ("job_type = 3", "job_type", "is a whole number"),
            ("statement = {}", "statement", "is no known key; write `statements`"),
            (
                "[scope.purge.statements]\ndelete_dataset = \"DELETE FROM heimdall.synthetic_datasets\"",
                "statements.delete_dataset",
                "names no `$1`, so it would be about every row",
            ),
        ] {
            let problem = only_problem(&with(lines));
            assert_eq!(problem.key, format!("scope[0].purge.{key}"), "{problem}");
            assert!(problem.message.contains(message) && !problem.message.contains("canary"), "{problem}");
        }
    }

    #[test]
    fn its_role_has_an_address_of_its_own() {
        let config = loaded(&with(""));
        let purge = config.scopes[0].purge.as_ref().expect("a purge");
        let read = |pairs: &[(&str, &str)]| secrets::purge(purge, &variables(pairs));
        let reading = ("ORPHAN_SWEEPER_DATABASE_URL", "postgres://reader:canary@h/d");
        assert!(
            read(&[reading, ("DATABASE_URL", "postgres://h/d")]).expect("none").is_none(),
            "another's is not taken"
        );
        let url = read(&[reading, ("ORPHAN_SWEEPER_PURGE_DATABASE_URL", "postgres://purger:canary@h/d")]);
        assert_eq!(url.expect("an address").expect("one").shown, "postgres://h:5432/d");
        let wrong = read(&[("ORPHAN_SWEEPER_PURGE_DATABASE_URL", "sqlite:///d")]).expect_err("no rows to purge");
        assert!(wrong.to_string().contains("is not postgres"), "{wrong}");
    }
}

mod selftest {
    use super::*;

    fn with(lines: &str) -> String {
        format!("{COMMITTED}\n[scope.selftest]\n{lines}\n")
    }

    #[test]
    fn what_the_committed_file_shows_as_the_defaults_are_the_defaults() {
        let config = loaded(COMMITTED);
        let statements = &config.scopes[0].selftest.statements;
        let children: Vec<String> = statements.insert_children.iter().map(|sql| format!("\"{sql}\"")).collect();
        for (key, value) in [
            ("insert_dataset", format!("\"{}\"", statements.insert_dataset)),
            ("insert_children", format!("[{}]", children.join(", "))),
            ("insert_job", format!("\"{}\"", statements.insert_job)),
        ] {
            let is_shown = |line: &str| {
                line.strip_prefix("# ")
                    .and_then(|line| line.split_once('='))
                    .is_some_and(|(name, shown)| name.trim() == key && shown.trim() == value)
            };
            assert!(COMMITTED.lines().any(is_shown), "{key}");
        }
    }

    #[test]
    fn a_statement_that_does_not_name_its_places_is_a_problem() {
        for (lines, key, message) in [
            ("statement = {}", "statement", "is no known key; write `statements`"),
            ("access_key_file = \"a\"", "access_key_file", "stands alone"),
            (
                "[scope.selftest.statements]\ninsert_dataset = \"INSERT INTO a.b (id, name) VALUES ($1, $2)\"",
                "statements.insert_dataset",
                "names no `$3`",
            ),
            (
                "[scope.selftest.statements]\ninsert_job = \"INSERT INTO a.b (id) VALUES ($1)\"",
                "statements.insert_job",
                "names no `$2`",
            ),
            (
                "[scope.selftest.statements]\ninsert_children = [\"INSERT INTO a.b DEFAULT VALUES\"]",
                "statements.insert_children",
                "names no `$1`",
            ),
        ] {
            let problem = only_problem(&with(lines));
            assert_eq!(problem.key, format!("scope[0].selftest.{key}"), "{problem}");
            assert!(problem.message.contains(message), "{problem}");
        }
    }

    #[test]
    fn it_writes_by_a_role_and_a_pair_of_its_own_where_they_are_given() {
        let config = loaded(COMMITTED);
        let scope = &config.scopes[0];
        let role = |pairs: &[(&str, &str)]| secrets::selftest(&scope.selftest, &variables(pairs));
        let purging = ("ORPHAN_SWEEPER_PURGE_DATABASE_URL", "postgres://purger:canary@h/d");
        assert!(role(&[purging]).expect("none").is_none());
        let url = role(&[purging, ("ORPHAN_SWEEPER_SELFTEST_DATABASE_URL", "postgres://tester:canary@h/d")]);
        assert_eq!(url.expect("an address").expect("one").role(), "tester");
        let pair = |pairs: &[(&str, &str)]| {
            use secrecy::ExposeSecret as _;
            let pair = secrets::store_for_selftest(&config, scope, &variables(pairs)).expect("a pair");
            pair.access_key.expose_secret().to_owned()
        };
        let looking = [("AWS_ACCESS_KEY_ID", "looking"), ("AWS_SECRET_ACCESS_KEY", "x")];
        let deleting =
            [("ORPHAN_SWEEPER_DELETE_ACCESS_KEY_ID", "deleting"), ("ORPHAN_SWEEPER_DELETE_SECRET_ACCESS_KEY", "x")];
        let testing =
            [("ORPHAN_SWEEPER_SELFTEST_ACCESS_KEY_ID", "testing"), ("ORPHAN_SWEEPER_SELFTEST_SECRET_ACCESS_KEY", "x")];
        assert_eq!(pair(&looking), "looking");
        assert_eq!(pair(&[looking, deleting].concat()), "deleting");
        assert_eq!(pair(&[looking, deleting, testing].concat()), "testing");
    }

    #[test]
    fn a_database_is_on_this_host_by_its_address_alone() {
        let config = loaded(COMMITTED);
        for (url, is_here) in [
            ("postgres://u:canary@127.0.0.1/d", true),
            ("postgres://u:canary@[::1]/d", true),
            ("postgres://u:canary@localhost/d", true),
            ("postgres:///d?host=/run/postgresql", true),
            ("postgres://u:canary@db.internal/d", false),
            ("postgres://u:canary@localhost.internal/d", false),
            ("postgres://u:canary@10.0.0.7/d", false),
            ("sqlite:///d", true),
        ] {
            let read = secrets::database(&config, &variables(&[("ORPHAN_SWEEPER_DATABASE_URL", url)]));
            assert_eq!(read.expect("an address").is_on_this_host(), is_here, "{url}");
        }
    }
}
