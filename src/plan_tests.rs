use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::model::{DatabaseIdentity, TableIdentity};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_timestamp(1_800_000_000 + seconds, 0).expect("in range")
}

fn uuid(n: u128) -> Uuid {
    Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0000 + n)
}

fn group(n: u128, newest: Option<Timestamp>) -> PlanGroup {
    PlanGroup {
        id: DatasetId(uuid(n)),
        pattern: "synthetic/{id}/".into(),
        prefix: format!("synthetic/{}/", uuid(n)),
        objects: 2500,
        bytes: 1 << 40,
        oldest: newest.map(|newest| newest - chrono::Duration::days(3)),
        newest,
        digest: Sha256Hash([7; 32]),
        first_seen: at(0),
        first_run: RunId(uuid(900)),
        sightings: 8,
    }
}

fn database() -> DatabaseIdentity {
    DatabaseIdentity {
        system: "7123456789012345678".into(),
        timeline: "00000001".into(),
        database: "platform".into(),
        tables: vec![TableIdentity { name: "heimdall.synthetic_datasets".into(), oid: 16_385 }],
    }
}

#[test]
fn a_plan_of_no_backfill_has_the_bytes_and_the_hash_that_it_always_had() {
    let (plain, backfill) = (sample(), Backfill { created_before: sample().created_at });
    let text = String::from_utf8(plain.to_bytes()).expect("JSON");
    assert!(!text.contains("backfill"), "{text}");
    let marked = DeletePlan { backfill: Some(backfill), ..plain.clone() };
    assert_ne!(marked.hash(), plain.hash(), "the hash covers it");
    assert_eq!(verify(&marked.to_bytes()).expect("readable").plan, marked);
    let stripped = String::from_utf8(marked.to_bytes()).expect("JSON").replace("created_before", "created_after");
    assert!(verify(stripped.as_bytes()).is_err());
}

fn sample() -> DeletePlan {
    DeletePlan {
        plan_version: PLAN_VERSION,
        scope: "synthetic".into(),
        run_id: RunId(uuid(901)),
        created_at: at(0),
        expires_at: at(72 * 3600),
        ledger: PlanLedger { id: uuid(902), path: "/var/lib/orphan-sweeper/ledger.sqlite3".into() },
        target: PlanTarget {
            endpoint: "http://127.0.0.1:9000/".into(),
            bucket: "heimdall-synthetic-iq".into(),
            prefix: "synthetic/".into(),
            patterns: vec!["synthetic/{id}/".into(), "synthetic/dataset-{id}/".into()],
            database: database(),
        },
        policy: PlanPolicy { grace_s: 604_800, min_sightings: 3, min_sighting_span_s: 172_800, disposal: None },
        backfill: None,
        totals: PlanTotals { groups: 2, objects: 5000, bytes: 2 << 40 },
        groups: vec![group(1, Some(at(-700_000) + chrono::Duration::milliseconds(250))), group(2, None)],
    }
}

fn file(plan: &DeletePlan) -> Value {
    serde_json::from_slice(&plan.to_bytes()).expect("JSON")
}

fn verify_value(file: &Value) -> Result<VerifiedPlan, PlanError> {
    verify(&serde_json::to_vec(file).expect("JSON"))
}

/// The JSON pointer of every leaf and of every inner node below `pointer`.
fn walk(value: &Value, pointer: &str, leaves: &mut Vec<String>, inner: &mut Vec<String>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(object) => object.iter().map(|(key, child)| (key.clone(), child)).collect(),
        Value::Array(array) => array.iter().enumerate().map(|(index, child)| (index.to_string(), child)).collect(),
        _ => return leaves.push(pointer.to_owned()),
    };
    inner.push(pointer.to_owned());
    for (key, child) in children {
        walk(child, &format!("{pointer}/{key}"), leaves, inner);
    }
}

fn pointers(file: &Value) -> (Vec<String>, Vec<String>) {
    let (mut leaves, mut inner) = (Vec::new(), Vec::new());
    walk(&file["plan"], "/plan", &mut leaves, &mut inner);
    (leaves, inner)
}

/// Another value that the same field could have.
fn another(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_u64().expect("no field is negative or a fraction") + 1),
        Value::Null => json!(at(-5)),
        Value::String(text) if text.parse::<Timestamp>().is_ok() => {
            json!(text.parse::<Timestamp>().expect("a time") + chrono::Duration::milliseconds(1))
        }
        Value::String(text) if Uuid::try_parse(text).is_ok() => json!(uuid(77)),
        Value::String(text) if Sha256Hash::parse(text).is_some() => json!(Sha256Hash([8; 32])),
        Value::String(text) => json!(format!("{text}x")),
        other => panic!("no plan holds {other}"),
    }
}

#[test]
fn a_plan_comes_back_as_it_was() {
    for plan in [sample(), DeletePlan { groups: Vec::new(), totals: PlanTotals::default(), ..sample() }] {
        let verified = verify(&plan.to_bytes()).expect("its own bytes");
        assert_eq!(verified.plan, plan);
        assert_eq!(verified.hash, plan.hash());
    }
}

#[test]
fn the_bytes_and_the_hash_are_stable() {
    // A change here is a new format: it needs a new version, and old plans must be refused by it.
    let bytes = sample().to_bytes();
    let text = String::from_utf8(bytes.clone()).expect("text");
    let first_group = text.split("\"groups\": [").nth(1).expect("groups").split("},").next().expect("a group");
    let expected = r#"
      {
        "id": "01920000-0000-7000-8000-000000000001",
        "pattern": "synthetic/{id}/",
        "prefix": "synthetic/01920000-0000-7000-8000-000000000001/",
        "objects": 2500,
        "bytes": 1099511627776,
        "oldest": "2027-01-04T05:33:20.250Z",
        "newest": "2027-01-07T05:33:20.250Z",
        "digest": "0707070707070707070707070707070707070707070707070707070707070707",
        "first_seen": "2027-01-15T08:00:00Z",
        "first_run": "01920000-0000-7000-8000-000000000384",
        "sightings": 8
      "#;
    assert_eq!(first_group, expected);
    assert_eq!(sample().hash().to_string(), "688c7bf23ff26cf659b9a8b93fd5228e5d46f2efbb4b7c497304d90cbf5198f8");
    assert!(text.starts_with("{\n  \"sha256\": \"688c7bf23ff26cf659b9a8b93fd5228e5d46f2efbb4b7c497304d90cbf5198f8\",\n  \"plan\": {\n    \"plan_version\": 1,\n"), "{text}");
    assert!(text.ends_with("  ]\n  }\n}\n"), "{text}");
    assert_eq!(bytes, sample().to_bytes());
}

#[test]
fn every_field_is_covered_by_the_hash() {
    let original = file(&sample());
    let (leaves, _) = pointers(&original);
    assert_eq!(leaves.len(), 23 + 2 * 11, "{leaves:#?}");
    for pointer in leaves {
        let mut edited = original.clone();
        let value = edited.pointer_mut(&pointer).expect("a leaf");
        *value = another(value);
        assert_ne!(edited, original);
        let refused = verify_value(&edited);
        if pointer == "/plan/plan_version" {
            assert!(matches!(refused, Err(PlanError::Version(2))), "{refused:?}");
            continue;
        }
        assert!(matches!(refused, Err(PlanError::Edited)), "{pointer}: {refused:?}");
        let rehashed: DeletePlan = serde_json::from_value(edited["plan"].clone()).expect("still a plan");
        let verified = verify(&rehashed.to_bytes()).expect("a plan of its own");
        assert_ne!(verified.hash, sample().hash(), "{pointer}: edited and hashed again is another plan");
        assert_eq!(file(&verified.plan)["plan"], edited["plan"], "{pointer}: nothing is lost on the way");
    }
}

#[test]
fn groups_that_are_added_removed_or_moved_are_an_edit() {
    let original = file(&sample());
    let groups = original["plan"]["groups"].as_array().expect("a list").clone();
    let [first, second] = [groups[0].clone(), groups[1].clone()];
    for edited_groups in
        [json!([]), json!([first]), json!([second, first]), json!([first, second, second]), json!([first, first])]
    {
        let mut edited = original.clone();
        edited["plan"]["groups"] = edited_groups;
        assert!(matches!(verify_value(&edited), Err(PlanError::Edited)));
    }
    for list in ["/plan/target/patterns", "/plan/target/database/tables"] {
        let mut edited = original.clone();
        edited.pointer_mut(list).expect("a list").as_array_mut().expect("a list").clear();
        assert!(matches!(verify_value(&edited), Err(PlanError::Edited)), "{list}");
    }
}

#[test]
fn a_hash_of_something_else_is_an_edit() {
    let mut edited = file(&sample());
    edited["sha256"] = json!(Sha256Hash([0; 32]));
    assert!(matches!(verify_value(&edited), Err(PlanError::Edited)));
    let hash = sample().hash().to_string();
    for unreadable in [hash.to_uppercase(), hash[1..].to_owned(), format!("{hash}0"), String::new()] {
        edited["sha256"] = json!(unreadable);
        assert!(matches!(verify_value(&edited), Err(PlanError::Unreadable(_))), "{unreadable}");
    }
}

#[test]
fn an_unknown_a_missing_and_a_double_field_are_refused_at_every_level() {
    let original = file(&sample());
    let (_, inner) = pointers(&original);
    let objects: Vec<String> = inner
        .into_iter()
        .chain([String::new()])
        .filter(|pointer| original.pointer(pointer).expect("there").is_object())
        .collect();
    assert_eq!(objects.len(), 10, "{objects:?}");
    for pointer in objects {
        let object = original.pointer(&pointer).and_then(Value::as_object).expect("an object");
        let mut more = original.clone();
        more.pointer_mut(&pointer).expect("there")["approved"] = json!(true);
        assert!(matches!(verify_value(&more), Err(PlanError::Unreadable(_))), "{pointer}: unknown");
        for (key, value) in object {
            let is_optional = matches!(key.as_str(), "oldest" | "newest");
            let mut less = original.clone();
            less.pointer_mut(&pointer).and_then(Value::as_object_mut).expect("an object").remove(key);
            let refused = verify_value(&less);
            let is_refused = matches!(refused, Err(PlanError::Unreadable(_)))
                || is_optional && value.is_string() && matches!(refused, Err(PlanError::Edited));
            assert!(is_refused || is_optional && value.is_null(), "{pointer}/{key}: {refused:?}");
            let text = serde_json::to_string(object).expect("JSON");
            let doubled = format!("{{\"{key}\":{value},{}", &text[1..]);
            let whole = serde_json::to_string(&original).expect("JSON").replacen(&text, &doubled, 1);
            assert!(matches!(verify(whole.as_bytes()), Err(PlanError::Unreadable(_))), "{pointer}/{key}: double");
        }
    }
}

#[test]
fn a_plan_of_another_version_is_refused_whatever_else_it_says() {
    for version in [0, 2, 99] {
        let mut other = file(&sample());
        other["plan"]["plan_version"] = json!(version);
        other["plan"]["new_field"] = json!({});
        let refused = verify_value(&other);
        assert!(matches!(refused, Err(PlanError::Version(found)) if found == version), "{refused:?}");
        let rehashed = DeletePlan { plan_version: version, ..sample() };
        assert!(matches!(verify(&rehashed.to_bytes()), Err(PlanError::Version(_))), "hashed again too");
    }
    for nonsense in [json!("1"), json!(1.0), json!(-1), json!(null)] {
        let mut other = file(&sample());
        other["plan"]["plan_version"] = nonsense;
        assert!(matches!(verify_value(&other), Err(PlanError::Unreadable(_))));
    }
}

#[test]
fn the_way_it_is_written_does_not_matter() {
    let original = file(&sample());
    let compact = serde_json::to_vec(&original).expect("JSON");
    let text = String::from_utf8(sample().to_bytes()).expect("text");
    let indented = text.replace("  ", "\t");
    let windows = text.replace('\n', "\r\n");
    let escaped = text.replace("synthetic", "\\u0073ynthetic");
    for same in [
        compact,
        indented.into_bytes(),
        windows.into_bytes(),
        escaped.into_bytes(),
        format!("\n {text} \n").into_bytes(),
    ] {
        let verified = verify(&same).expect("the same plan");
        assert_eq!((verified.hash, verified.plan), (sample().hash(), sample()));
    }
}

#[test]
fn what_is_cut_or_followed_by_more_is_no_plan() {
    let bytes = sample().to_bytes();
    let end = bytes.len() - 1;
    assert_eq!(bytes[end], b'\n');
    for cut in 0..end {
        assert!(matches!(verify(&bytes[..cut]), Err(PlanError::Unreadable(_))), "cut at {cut}");
    }
    assert!(verify(&bytes[..end]).is_ok(), "without its last line break it is whole");
    for more in [&b"x"[..], b"{}", &bytes] {
        assert!(matches!(verify(&[&bytes, more].concat()), Err(PlanError::Unreadable(_))));
    }
    for other in [&b""[..], b"null", b"[]", b"{}", b"{\"plan\":{}}", b"\xff\xfe"] {
        assert!(matches!(verify(other), Err(PlanError::Unreadable(_))));
    }
    let deep = "[".repeat(100_000);
    assert!(matches!(verify(deep.as_bytes()), Err(PlanError::Unreadable(_))), "and no depth overflows the stack");
    let deep_inside = format!("{{\"plan\":{{\"plan_version\":1,\"x\":{deep}");
    assert!(matches!(verify(deep_inside.as_bytes()), Err(PlanError::Unreadable(_))));
}

#[test]
fn refusals_say_why() {
    assert_eq!(PlanError::Version(9).to_string(), "it is a plan of version 9; this program reads version 1");
    assert_eq!(PlanError::Edited.to_string(), "its hash does not match its content: it was edited");
    let unreadable = verify(b"{").expect_err("cut").to_string();
    assert!(unreadable.starts_with("it cannot be read as a plan: EOF"), "{unreadable}");
}

#[test]
fn a_target_is_what_the_configuration_and_the_database_say() {
    let fingerprint = TargetFingerprint {
        endpoint: "http://s/".into(),
        bucket: "b".into(),
        prefix: "p/".into(),
        patterns: vec!["p/{id}/".into()],
    };
    let target = PlanTarget::new(&fingerprint, &database());
    assert_eq!(target.fingerprint(), fingerprint);
    assert_eq!(target.database, database());
}

#[test]
fn a_policy_is_told_in_seconds() {
    let text = include_str!("../config.toml");
    let config = crate::config::parse(text, std::path::Path::new("config.toml"), &std::collections::BTreeMap::new())
        .expect("the committed file");
    let mut scope = config.scopes[0].clone();
    assert_eq!(
        PlanPolicy::of(&scope),
        PlanPolicy { grace_s: 604_800, min_sightings: 3, min_sighting_span_s: 172_800, disposal: None }
    );
    scope.policy.min_sighting_span = Duration::from_secs(90_061);
    scope.policy.min_sightings = 9;
    assert_eq!(
        PlanPolicy::of(&scope),
        PlanPolicy { grace_s: 604_800, min_sightings: 9, min_sighting_span_s: 90_061, disposal: None }
    );
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_and_are_no_plan(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(verify(&bytes).is_err());
    }

    #[test]
    fn arbitrary_json_is_no_plan(text in "\\{\"sha256\":\"[0-9a-f]{64}\",\"plan\":\\{\"plan_version\":[0-9]{1,12}(,\"[a-z_]{1,9}\":(null|[0-9]{1,3}|\"[ -~]{0,9}\")){0,9}\\}\\}") {
        prop_assert!(verify(text.as_bytes()).is_err());
    }

    #[test]
    fn damage_is_refused_or_changes_nothing(position in any::<proptest::sample::Index>(), byte in any::<u8>(), is_inserted in any::<bool>()) {
        let mut bytes = sample().to_bytes();
        let position = position.index(bytes.len());
        if is_inserted { bytes.insert(position, byte) } else { bytes[position] = byte }
        if let Ok(verified) = verify(&bytes) {
            prop_assert_eq!(verified.plan, sample());
        }
    }

    #[test]
    fn any_groups_come_back(sizes in proptest::collection::vec((any::<u128>(), any::<u64>(), any::<u64>(), any::<u32>(), "\\PC{0,20}"), 0..20)) {
        let groups = sizes.into_iter().map(|(id, objects, bytes, sightings, prefix)| {
            PlanGroup { id: DatasetId(Uuid::from_u128(id)), objects, bytes, sightings, prefix, ..group(1, None) }
        });
        let plan = DeletePlan { groups: groups.collect(), ..sample() };
        prop_assert_eq!(verify(&plan.to_bytes()).expect("its own bytes").plan, plan);
    }
}

#[test]
fn a_disposal_is_part_of_a_plan_only_where_it_is_no_plain_deletion() {
    let policy = |disposal| PlanPolicy { grace_s: 1, min_sightings: 3, min_sighting_span_s: 2, disposal };
    let text = |policy: &PlanPolicy| serde_json::to_string(policy).expect("serializable");
    let plain = "{\"grace_s\":1,\"min_sightings\":3,\"min_sighting_span_s\":2}";
    assert_eq!(text(&policy(None)), plain, "plans of older versions keep their hash");
    assert_eq!(serde_json::from_str::<PlanPolicy>(plain).expect("readable"), policy(None));
    let aside = policy(Some(PlanDisposal::Quarantine));
    assert_eq!(text(&aside), plain.replace('}', ",\"disposal\":\"quarantine\"}"));
    assert_eq!(serde_json::from_str::<PlanPolicy>(&text(&aside)).expect("readable"), aside);
}
