//! Keys are bytes, exactly as listed, and hostile: exactly those of the orphan go, and a report shows none of them raw.

use std::collections::BTreeMap;

use orphan_sweeper::embedded::Operation;
use uuid::Uuid;

use crate::support::{MemoryWorld, World, prefix, without};

/// Names that MinIO stores, each with how a report shows it.
fn names() -> Vec<(String, String)> {
    let plain = [
        "plain.npy",
        "two  spaces .npy",
        " lead",
        "trail ",
        "a+b",
        "a%2Bb",
        "a%252Bb",
        "a%25b",
        "a%b",
        "100%",
        "%",
        "%%",
        "a%00b",
        "a%0Ab",
        "a%2Fb",
        "'single'",
        "\"double\"",
        "`back`",
        "a,b;c",
        "<b>&amp;</b>",
        "&lt;",
        "&#1;",
        "&",
        "<>",
        "]]>",
        "<Key>x</Key>",
        "*",
        "a*",
        "?",
        "a?b=c",
        "#",
        "a#b",
        "[a-z]",
        "{id}",
        "back\\slash",
        "\\",
        "=cmd",
        "@x",
        "-x",
        "+x",
        "$(reboot)",
        "~",
        "|",
        "^",
        ":",
        "\u{e9}-composed",
        "e\u{301}-decomposed",
        "\u{c5}",
        "A\u{30a}",
        "\u{212b}",
        "\u{1f6f0}\u{fe0f}",
        "\u{1f468}\u{1f3fd}",
        "\u{65e5}\u{672c}",
        "\u{10ffff}",
        "\u{ffe9}",
        "\u{fffd}",
        "sample/rx_0.npy",
        "sample/rx_1.npy",
        "sample-1/rx_0.npy",
        "UPPER",
        "upper",
    ];
    let escaped = [
        ("line\nfeed", "line\\u{a}feed"),
        ("carriage\rreturn", "carriage\\u{d}return"),
        ("both\r\n", "both\\u{d}\\u{a}"),
        ("\ttab", "\\u{9}tab"),
        ("\u{7f}del", "\\u{7f}del"),
        ("\u{85}next", "\\u{85}next"),
        ("\u{9b}31m", "\\u{9b}31m"),
        ("right\u{202e}ypn.", "right\\u{202e}ypn."),
        ("\u{200f}mark", "\\u{200f}mark"),
        ("\u{2066}isolate", "\\u{2066}isolate"),
        ("zero\u{200b}width", "zero\\u{200b}width"),
        ("\u{feff}bom", "\\u{feff}bom"),
        ("not\u{fffe}a", "not\\u{fffe}a"),
        ("not\u{ffff}b", "not\\u{ffff}b"),
        ("line\u{2028}separator", "line\\u{2028}separator"),
    ];
    let mut names: Vec<(String, String)> = plain.map(|name| (name.to_owned(), name.to_owned())).to_vec();
    names.extend(escaped.map(|(name, shown)| (name.to_owned(), shown.to_owned())));
    let controls = (1..0x20).filter_map(char::from_u32);
    names.extend(controls.map(|c| (format!("control {c}."), format!("control \\u{{{:x}}}.", u32::from(c)))));
    names
}

/// A name that makes a key of 1,024 bytes, in segments of at most 255.
fn longest_name(prefix: &str) -> String {
    let mut name = String::new();
    while prefix.len() + name.len() < 1024 {
        let left = 1024 - prefix.len() - name.len();
        let is_last = left <= 256;
        name.push_str(&"n".repeat(if is_last { left } else { 200 }));
        if !is_last {
            name.push('/');
        }
    }
    assert_eq!(prefix.len() + name.len(), 1024);
    name
}

/// Every key of the set under a prefix, with how a report shows it.
fn keys_under(prefix: &str) -> BTreeMap<String, String> {
    let mut names = names();
    let longest = longest_name(prefix);
    names.push((longest.clone(), longest));
    // Markers: of the group itself, of folders with and without something in them.
    for marker in ["", "folder/", "full/", "full/x", "deep/er/"] {
        names.push((marker.to_owned(), marker.to_owned()));
    }
    let count = names.len();
    let keys: BTreeMap<_, _> =
        names.into_iter().map(|(name, shown)| (format!("{prefix}{name}"), format!("{prefix}{shown}"))).collect();
    assert_eq!(keys.len(), count, "no name stands there twice");
    keys
}

/// Every second object is empty; the others differ.
fn body_of(position: usize, key: &str) -> Vec<u8> {
    if key.ends_with('/') || position.is_multiple_of(2) {
        Vec::new()
    } else {
        format!("{position} of {key}").into_bytes()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_the_keys_of_the_orphan_go_whatever_they_hold_and_those_of_the_live_neighbour_stay() {
    let world = World::new().await;
    let orphan = Uuid::new_v4();
    // The live ids differ from the orphan's in their last digit only, so that its neighbours in the listing are live.
    let (below, above) = (neighbour(orphan, -1), neighbour(orphan, 1));
    let marker_only = Uuid::new_v4();
    for id in [below, above] {
        world.database.insert(id).await;
    }
    for live in [prefix(0, below), prefix(0, above), prefix(1, below)] {
        for (position, key) in keys_under(&live).keys().enumerate() {
            world.bucket.put(key, &body_of(position, key)).await;
        }
    }
    let mut expected = BTreeMap::new();
    for gone in [prefix(0, orphan), prefix(1, orphan)] {
        expected.extend(keys_under(&gone));
    }
    expected.insert(prefix(1, marker_only), prefix(1, marker_only));
    for (position, key) in expected.keys().enumerate() {
        world.bucket.put(key, &body_of(position, key)).await;
    }
    let before = world.contents().await;
    assert_eq!(before.len(), expected.len() + 3 * keys_under("x/").len(), "the store tells every key apart");

    let summary = world.audit().await;
    assert_eq!(
        (&summary["groups"]["live"], &summary["groups"]["eligible"], &summary["groups"]["foreign"]),
        (&3.into(), &3.into(), &0.into())
    );
    assert_eq!(summary["eligible_objects"], expected.len());
    let summary = world.apply().await.summary(0);
    let deletion = &summary["deletion"];
    assert_eq!(
        (&deletion["requested"], &deletion["deleted"]),
        (&expected.len().into(), &expected.len().into()),
        "{deletion:#}"
    );
    let kept = without(&before, &[prefix(0, orphan), prefix(1, orphan), prefix(1, marker_only)]);
    assert_eq!(world.contents().await, kept, "byte for byte: every key with its entity tag, the MD5 of its body");

    let mut told: Vec<String> = world.program.csv("deletions.csv").into_iter().map(|row| row["key"].clone()).collect();
    told.sort();
    let mut shown: Vec<String> = expected.into_values().collect();
    shown.sort();
    assert_eq!(told, shown, "each key once, escaped");
    assert_no_raw_control(&world);
}

/// The id that many after this one.
fn neighbour(id: Uuid, step: i8) -> Uuid {
    Uuid::from_u128(id.as_u128().wrapping_add_signed(step.into()))
}

/// No report holds a character that a terminal obeys or that turns text around.
fn assert_no_raw_control(world: &World) {
    let latest = std::path::PathBuf::from(world.program.latest(""));
    for name in std::fs::read_dir(latest)
        .expect("a report")
        .map(|entry| entry.expect("a file").file_name().into_string().expect("a name"))
    {
        let text = world.program.read(&name);
        let raw: Vec<char> = text
            .chars()
            .filter(|c| {
                (c.is_control() && *c != '\n') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
            })
            .collect();
        assert!(raw.is_empty(), "{name}: {raw:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_keys_are_listed_escaped_and_left_alone() {
    let world = World::new().await;
    world.live(0).await;
    let mut expected = BTreeMap::new();
    for (name, shown) in names() {
        // A name with a slash is a foreign prefix.
        let cut = |text: &str| text.split_once('/').map_or(text.to_owned(), |(first, _)| format!("{first}/"));
        let key = format!("synthetic/{name}");
        world.bucket.put(&key, b"mine").await;
        expected.insert(format!("synthetic/{}", cut(&name)), format!("synthetic/{}", cut(&shown)));
    }
    let before = world.contents().await;
    let summary = world.audit().await;
    assert_eq!(summary["groups"]["foreign"], expected.len());
    let told: Vec<String> =
        world.program.csv("foreign.csv").into_iter().map(|row| row["prefix_or_key"].clone()).collect();
    assert_eq!(told.len(), expected.len());
    assert!(expected.values().all(|shown| told.contains(shown)), "{told:#?}");
    assert_no_raw_control(&world);
    assert_eq!(world.apply().await.summary(0)["deletion"], serde_json::Value::Null);
    assert_eq!(world.contents().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_key_is_named_in_one_delete_request_and_one_that_xml_cannot_carry_in_its_own() {
    let world = MemoryWorld::new().await;
    let orphan = Uuid::new_v4();
    let live = neighbour(orphan, 1);
    world.database.insert(live).await;
    let expected = keys_under(&prefix(0, orphan));
    for key in expected.keys().chain(keys_under(&prefix(0, live)).keys()) {
        world.put(key);
    }
    let before = world.keys();
    world.audit().await;
    assert_eq!(world.apply().await.summary(0)["deletion"]["deleted"], expected.len());
    assert_eq!(world.asked_to_delete(), expected.keys().cloned().collect());
    let requests = world.store.requests();
    let named: usize = requests
        .iter()
        .filter(|request| matches!(request.operation, Operation::DeleteObjects | Operation::DeleteObject))
        .map(|request| request.keys.len())
        .sum();
    assert_eq!(named, expected.len(), "none twice");
    let spoils_xml = |c: char| matches!(c, '\u{1}'..='\u{8}' | '\u{b}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}');
    for request in requests.iter().filter(|request| request.operation == Operation::DeleteObjects) {
        assert!(request.keys.iter().all(|key| !key.contains(spoils_xml)), "{:?}", request.keys);
        assert_eq!(request.is_content_md5_right, Some(true));
    }
    let alone = requests.iter().filter(|request| request.operation == Operation::DeleteObject);
    assert!(alone.clone().all(|request| request.keys.iter().all(|key| key.contains(spoils_xml))), "only those");
    assert_eq!(alone.count(), expected.keys().filter(|key| key.contains(spoils_xml)).count());
    let left = before.into_iter().filter(|key| !key.starts_with(&prefix(0, orphan))).collect();
    assert_eq!(world.keys(), left);
}
