//! The HTTP API on real servers: who may, what it answers, and what a caller can never reach.

use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::gate::Gate;
use crate::support::platform::Platform;
use crate::support::{Api, World, prefix, without};

/// A world with a live dataset, two orphans, a row without objects and a foreign key, audited once; the run, and a token that
/// may look.
async fn looked_at() -> (World, Value, [Uuid; 2], String) {
    let world = World::new().await;
    world.live(0).await;
    let small = world.orphan(1).await;
    let large = Uuid::new_v4();
    world.put_group(&prefix(0, large), &["a", "b", "c"]).await;
    world.bucket.put("synthetic/stray", b"x").await;
    world.database.insert(Uuid::new_v4()).await;
    let summary = world.audit().await;
    let token = world.program.token("read").await;
    (world, summary, [small, large], token)
}

/// A path of the description with something in each place.
fn filled(path: &str) -> String {
    let id = Uuid::new_v4().to_string();
    let mut path = path.to_owned();
    for (place, value) in [
        ("{scope}", "synthetic"),
        ("{breaker}", "live_drop"),
        ("{file}", "orphans.csv"),
        ("{hash}", "0123456789abcdef"),
        ("{run_id}", id.as_str()),
        ("{id}", id.as_str()),
        ("{dataset_id}", id.as_str()),
        ("{job_id}", id.as_str()),
        ("{purge_id}", id.as_str()),
    ] {
        path = path.replace(place, value);
    }
    assert!(!path.contains('{'), "{path} has a place that this test does not know");
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_asks_for_a_token_of_its_scope_and_for_no_other() {
    let world = World::new().await;
    let mut tokens = Vec::new();
    for scope in ["read", "approve", "delete"] {
        tokens.push((scope, world.program.token(scope).await));
    }
    let ran = world.program.run(&["token", "create", "--name", "gone", "--scope", "read"]).await;
    let revoked = ran.stdout.trim_end().to_owned();
    let api = Api::start(&world.program).await;
    assert_eq!(api.get("/api/v1/scopes", &revoked).await.status, 200);
    assert_eq!(world.program.run(&["token", "revoke", "gone"]).await.code, 0);

    let document = api.send(api.request("GET", "/api/v1/openapi.json")).await.with(200);
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")), "{}", document["openapi"]);
    let (mut open, mut asked) = (Vec::new(), 0);
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let (method, at) = (method.to_uppercase(), filled(path));
            let Some(needed) = operation["security"][0]["token"][0].as_str() else {
                open.push(path.as_str());
                continue;
            };
            let without_token = api.send(api.request(&method, &at)).await;
            without_token.problem(401);
            assert_eq!(without_token.header("www-authenticate"), "Bearer realm=\"orphan-sweeper\"", "{method} {path}");
            for wrong in [revoked.as_str(), "osw_", "x"] {
                let refused = api.send(api.request(&method, &at).bearer_auth(wrong)).await;
                refused.problem(401);
                assert!(refused.header("www-authenticate").contains("invalid_token"), "{method} {path}");
            }
            for (scope, token) in &tokens {
                let answer = api.send(api.request(&method, &at).bearer_auth(token)).await;
                if needed == "read" || needed == *scope {
                    assert!(![401, 403, 500].contains(&answer.status), "{method} {path} with {scope}: {answer:?}");
                } else {
                    answer.problem(403);
                    assert!(answer.header("www-authenticate").contains("insufficient_scope"), "{method} {path}");
                }
                asked += 1;
            }
        }
    }
    open.retain(|path| *path != "/metrics");
    assert_eq!(open, ["/healthz", "/readyz"], "what needs no token");
    assert!(asked >= 3 * 24, "{asked}");
    let used = world.program.run(&["token", "list", "--json"]).await.json();
    assert!(used.as_array().expect("tokens").iter().all(|token| token["last_used_at"].is_string()), "{used:#}");
    assert_eq!(api.stop().await, 0);
    // Nothing on the disk lets anybody use one.
    for (path, bytes) in world.program.files() {
        for (_, token) in &tokens {
            let found = bytes.windows(token.len()).any(|window| window == token.as_bytes());
            assert!(!found, "{} holds a token", path.display());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn findings_are_filtered_sorted_and_paged() {
    let (world, summary, [small, large], token) = looked_at().await;
    let api = Api::start(&world.program).await;
    let run = summary["run_id"].as_str().expect("an id");
    let runs = api.get("/api/v1/runs?scope=synthetic&limit=1", &token).await.with(200);
    assert_eq!((&runs["runs"][0]["run_id"], &runs["next"]), (&json!(run), &Value::Null));
    let shown = api.get(&format!("/api/v1/runs/{run}"), &token).await.with(200);
    assert_eq!(shown["summary"], summary);

    let at = |query: &str| format!("/api/v1/runs/{run}/orphans{query}");
    let page = api.get(&at("?sort=bytes&order=desc&limit=1"), &token).await.with(200);
    assert_eq!((&page["orphans"][0]["id"], &page["matched"]), (&json!(large), &json!(2)), "{page:#}");
    assert_eq!(
        (&page["orphans"][0]["bytes"], &page["orphans"][0]["objects"], &page["orphans"][0]["prefix"]),
        (&json!(30), &json!(3), &json!(prefix(0, large)))
    );
    let cursor = page["next"].as_str().expect("another page");
    let page = api.get(&at(&format!("?sort=bytes&order=desc&limit=1&cursor={cursor}")), &token).await.with(200);
    assert_eq!((&page["orphans"][0]["id"], &page["next"]), (&json!(small), &Value::Null), "{page:#}");
    let page = api.get(&at(&format!("?id={small}&verdict=eligible&reason=eligible")), &token).await.with(200);
    assert_eq!(page["orphans"].as_array().expect("orphans").len(), 1, "{page:#}");
    assert_eq!(api.get(&at("?verdict=keep"), &token).await.with(200)["matched"], 0);
    for wrong in [
        "?verdict=gone",
        "?limit=0",
        "?limit=1001",
        "?cursor=x",
        "?sort=size",
        "?colour=red",
        "?id=1",
        "?limit=1&limit=2",
    ] {
        api.get(&at(wrong), &token).await.problem(422);
    }
    let missing = api.get(&format!("/api/v1/runs/{run}/missing"), &token).await.with(200);
    assert_eq!(
        (&missing["matched"], &missing["missing"][0]["table"]),
        (&json!(1), &json!("heimdall.synthetic_datasets"))
    );
    let foreign = api.get(&format!("/api/v1/runs/{run}/foreign"), &token).await.with(200);
    assert_eq!(foreign["foreign"][0]["prefix_or_key"], "synthetic/stray");
    api.get(&format!("/api/v1/runs/{}/orphans", Uuid::new_v4()), &token).await.problem(404);
    api.get("/api/v1/runs/no-uuid/orphans", &token).await.problem(422);

    let hash = summary["plan_hash"].as_str().expect("a plan");
    let plans = api.get("/api/v1/plans?state=open", &token).await.with(200);
    assert_eq!((&plans["plans"][0]["plan_hash"], &plans["plans"][0]["groups"]), (&json!(hash), &json!(2)));
    let groups = api.get(&format!("/api/v1/plans/{hash}/groups?limit=1"), &token).await.with(200);
    assert_eq!((&groups["groups"][0]["id"], &groups["total"], &groups["next"]), (&json!(large), &json!(2), &json!(1)));
    let shown = api.get(&format!("/api/v1/plans/{}", &hash[..8]), &token).await.with(200);
    assert_eq!((&shown["plan_hash"], &shown["state"]), (&json!(hash), &json!("open")));
    api.get("/api/v1/plans/config.toml", &token).await.problem(422);
    api.get(&format!("/api/v1/plans/{}", "0".repeat(64)), &token).await.problem(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_of_a_report_are_served_and_no_other_file_is() {
    let (world, summary, _, token) = looked_at().await;
    let run = summary["run_id"].as_str().expect("an id");
    let folder = world.program.reports().join(run);
    std::fs::write(folder.join("secrets.txt"), "x").expect("written");
    std::fs::write(folder.join(".orphans.csv.partial"), "x").expect("written");
    std::os::unix::fs::symlink("/etc/passwd", folder.join("restored.csv")).expect("linked");
    let api = Api::start(&world.program).await;
    let listed = api.get(&format!("/api/v1/runs/{run}/reports"), &token).await.with(200);
    let names: Vec<&str> = listed.as_array().expect("files").iter().filter_map(|file| file["name"].as_str()).collect();
    assert!(names.contains(&"orphans.csv") && names.contains(&"report.html"), "{names:?}");
    assert!(!names.iter().any(|name| name.contains("secret") || name.starts_with('.') || *name == "restored.csv"));
    for file in listed.as_array().expect("files") {
        let (name, href) = (file["name"].as_str().expect("a name"), file["href"].as_str().expect("a place"));
        let answer = api.get(href, &token).await;
        assert_eq!(answer.status, 200, "{name}");
        assert_eq!(answer.bytes, std::fs::read(folder.join(name)).expect("read"), "{name}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        let kind = match name.rsplit_once('.').expect("an extension").1 {
            "html" => "text/html; charset=utf-8",
            "csv" => "text/csv; charset=utf-8; header=present",
            _ => "application/json",
        };
        assert_eq!(answer.header("content-type"), kind, "{name}");
        if name == "report.html" {
            let policy = answer.header("content-security-policy");
            assert!(policy.starts_with("default-src 'none'") && policy.ends_with("sandbox allow-scripts"), "{policy}");
        } else {
            assert!(answer.header("content-disposition").starts_with("attachment"), "{name}");
        }
    }
    for name in
        ["secrets.txt", ".orphans.csv.partial", "restored.csv", "uploads.csv.bak", "", ".", "..", "orphans.csv%00"]
    {
        let target = format!("/api/v1/runs/{run}/reports/{name}");
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
        );
        assert_eq!(api.raw(&request).await.0, 404, "{target}");
    }
    for target in [
        format!("/api/v1/runs/{run}/reports/../../../ledger.sqlite3"),
        format!("/api/v1/runs/{run}/reports/..%2f..%2f..%2fledger.sqlite3"),
        format!("/api/v1/runs/{run}/reports/%2e%2e/%2e%2e/ledger.sqlite3"),
        format!("/api/v1/runs/{run}/reports/%2fetc%2fpasswd"),
        "/api/v1/runs/../../../etc/passwd".to_owned(),
        "/api/v1/runs/%2e%2e/reports/ledger.sqlite3".to_owned(),
        "/api/v1/runs/latest/reports/orphans.csv".to_owned(),
    ] {
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
        );
        let (status, answer) = api.raw(&request).await;
        assert!([404, 422].contains(&status.as_u16()), "{target}: {answer}");
        assert!(answer.contains("application/problem+json"), "{target}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_approves_over_the_api_and_a_sweep_on_demand_deletes_that_and_no_more() {
    let (world, summary, [small, large], reader) = looked_at().await;
    let before = world.contents().await;
    let approver = world.program.token("approve").await;
    let api = Api::start(&world.program).await;
    let hash = summary["plan_hash"].as_str().expect("a plan");
    let at = format!("/api/v1/plans/{hash}/decisions");
    let approve = json!({ "decision": "approved", "ids": [small], "reason": "looked at it" });
    api.post(&at, &reader, &approve).await.problem(403);
    for wrong in [
        json!({ "decision": "approved", "ids": [], "reason": "an empty list is not the whole plan" }),
        json!({ "decision": "approved", "reason": "neither" }),
        json!({ "decision": "approved", "ids": [small], "whole_plan": true, "reason": "both" }),
        json!({ "decision": "approved", "ids": [Uuid::new_v4()], "reason": "a stranger" }),
        json!({ "decision": "approved", "ids": [small], "reason": " " }),
        json!({ "decision": "perhaps", "ids": [small], "reason": "x" }),
        json!({ "decision": "approved", "ids": [small], "reason": "x", "by": "somebody else" }),
    ] {
        api.post(&at, &approver, &wrong).await.problem(422);
    }
    let known = api.post(&at, &approver, &approve).await.with(200);
    assert_eq!(known["approved"]["groups"], 1, "{known:#}");
    let decisions = api.get(&at, &reader).await.with(200);
    assert_eq!((&decisions[0]["by"], &decisions[0]["id"]), (&json!("approveer"), &json!(small)), "{decisions:#}");

    let asked = api.post("/api/v1/scopes/synthetic/runs", &approver, &json!({ "command": "sweep" })).await;
    let trigger = asked.with(202);
    assert_eq!(trigger["by"], "approveer");
    let ended = ended(&api, asked.header("location"), &reader).await;
    assert_eq!((&ended["outcome"], &ended["exit_code"]), (&json!("complete"), &json!(0)), "{ended:#}");
    let run = api.get(&format!("/api/v1/runs/{}", ended["run_id"].as_str().expect("a run")), &reader).await.with(200);
    assert_eq!((&run["run"]["command"], &run["summary"]["deletion"]["deleted"]), (&json!("sweep"), &json!(2)));
    assert_eq!(world.contents().await, without(&before, &[prefix(1, small)]));
    let again = json!({ "decision": "rejected", "ids": [large], "reason": "too late" });
    api.post(&at, &approver, &again).await.problem(409);
    assert_eq!(api.stop().await, 0);
}

/// The trigger, once its run ended.
async fn ended(api: &Api, at: &str, token: &str) -> Value {
    for _ in 0..600 {
        let trigger = api.get(at, token).await.with(200);
        if !["waiting", "running"].contains(&trigger["state"].as_str().expect("a state")) {
            return trigger;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it never ended:\n{}", api.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_run_goes_on_one_more_waits_and_a_third_is_refused() {
    let mut world = World::new().await;
    world.live(0).await;
    let free = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let (held, (begun, mut is_begun)) = (free.clone(), tokio::sync::mpsc::channel(9));
    let gate = Gate::open(&world.bucket.endpoint, move |passing| {
        let (held, begun) = (held.clone(), begun.clone());
        async move {
            if passing.is_prefix_listing() {
                begun.send(()).await.ok();
                held.acquire().await.expect("open").forget();
            }
        }
    })
    .await;
    world.program.set("ORPHAN_SWEEPER__STORE__ENDPOINT", &gate.endpoint);
    let token = world.program.token("approve").await;
    let api = Api::start(&world.program).await;
    let (at, audit) = ("/api/v1/scopes/synthetic/runs", json!({ "command": "audit" }));
    let first = api.post(at, &token, &audit).await;
    first.with(202);
    is_begun.recv().await.expect("the first begins");
    let running = api.get(first.header("location"), &token).await.with(200);
    assert_eq!(running["state"], "running");
    assert!(running["run_id"].is_string(), "{running:#}");
    let second = api.post(at, &token, &audit).await;
    assert_eq!(second.with(202)["state"], "waiting");
    let third = api.post(at, &token, &json!({ "command": "sweep" })).await.problem(409);
    assert!(third["hint"].as_str().expect("a hint").contains(second.header("location")), "{third:#}");
    free.add_permits(100);
    assert_eq!(ended(&api, first.header("location"), &token).await["outcome"], "complete");
    assert_eq!(ended(&api, second.header("location"), &token).await["outcome"], "complete");
    assert_eq!(api.stop().await, 0);
    assert_eq!(world.program.run_folders().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_latched_breaker_is_acknowledged_for_what_was_looked_at_alone() {
    let world = World::new().await;
    for _ in 0..12 {
        world.live(0).await;
    }
    world.audit().await;
    world
        .database
        .execute(
            "DELETE FROM heimdall.synthetic_datasets WHERE id IN (SELECT id FROM heimdall.synthetic_datasets LIMIT 7)",
        )
        .await;
    let tripped = world.program.run(&["audit", "--json"]).await.summary(4);
    let (reader, approver) = (world.program.token("read").await, world.program.token("approve").await);
    let api = Api::start(&world.program).await;
    let latches = api.get("/api/v1/breakers", &reader).await.with(200);
    assert_eq!(
        (&latches[0]["breaker"], &latches[0]["run_id"]),
        (&json!("live_drop"), &tripped["run_id"]),
        "{latches:#}"
    );
    let at = "/api/v1/scopes/synthetic/breakers/live_drop/acknowledgements";
    let of = |run: &Value| json!({ "run_id": run, "reason": "we removed them" });
    api.post(at, &approver, &of(&json!(Uuid::new_v4()))).await.problem(409);
    api.post(at, &reader, &of(&tripped["run_id"])).await.problem(403);
    api.post("/api/v1/scopes/synthetic/breakers/no_such/acknowledgements", &approver, &of(&tripped["run_id"]))
        .await
        .problem(404);
    let given = api.post(at, &approver, &of(&tripped["run_id"])).await.with(201);
    assert_eq!(given["by"], "approveer");
    api.post(at, &approver, &of(&tripped["run_id"])).await.problem(409);
    assert_eq!(api.get("/api/v1/breakers", &reader).await.with(200), json!([]));
    let all = api.get("/api/v1/acknowledgements", &reader).await.with(200);
    assert_eq!((&all[0]["breaker"], &all[0]["reason"]), (&json!("live_drop"), &json!("we removed them")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_over_the_api_keeps_what_a_sweep_would_take() {
    let mut world = World::new().await;
    world.program.set_scope("POLICY__APPROVAL", "automatic");
    world.live(0).await;
    let orphan = world.orphan(1).await;
    let token = world.program.token("approve").await;
    let api = Api::start(&world.program).await;
    let at = "/api/v1/scopes/synthetic/holds";
    api.post(at, &token, &json!({ "id": orphan, "reason": "x", "until": "2001-01-01" })).await.problem(422);
    let placed = api.post(at, &token, &json!({ "id": orphan, "reason": "evidence" })).await.with(201);
    assert_eq!((&placed["by"], &placed["counts"]), (&json!("approveer"), &json!(true)));
    world.settle().await;
    let before = world.contents().await;
    let asked = api.post("/api/v1/scopes/synthetic/runs", &token, &json!({ "command": "sweep" })).await;
    ended(&api, asked.header("location"), &token).await;
    assert_eq!(world.contents().await, before, "held");
    assert_eq!(api.delete(&format!("{at}/{orphan}"), &token).await.status, 204);
    api.delete(&format!("{at}/{orphan}"), &token).await.problem(404);
    assert_eq!(api.get(at, &token).await.with(200), json!([]));
    let asked = api.post("/api/v1/scopes/synthetic/runs", &token, &json!({ "command": "sweep" })).await;
    ended(&api, asked.header("location"), &token).await;
    assert_eq!(world.contents().await, without(&before, &[prefix(1, orphan)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_takes_too_long_is_ended_and_says_so() {
    let (mut world, ..) = looked_at().await;
    world.program.set("ORPHAN_SWEEPER__SERVE__REQUEST_TIMEOUT", "1s");
    let approver = world.program.token("approve").await;
    let api = Api::start(&world.program).await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(world.program.path("reports/ledger.sqlite3"));
    let pool = sqlx::SqlitePool::connect_with(options).await.expect("opened");
    // Another program writes, and takes its time.
    let writing = pool.begin_with("BEGIN IMMEDIATE").await.expect("begun");
    let hold = json!({ "id": Uuid::new_v4(), "reason": "a paper" });
    let asked = api.post("/api/v1/scopes/synthetic/holds", &approver, &hold);
    // Whoever writes would be waited for longer.
    let problem = tokio::time::timeout(Duration::from_secs(15), asked).await.expect("answered").problem(503);
    assert!(problem.to_string().contains("serve.request_timeout"), "{problem}");
    writing.rollback().await.expect("ended");
    api.post("/api/v1/scopes/synthetic/holds", &approver, &hold).await.with(201);
    assert_eq!(api.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_error_is_a_problem_document_and_no_page_from_elsewhere_reaches_anything() {
    let mut world = World::new().await;
    world.program.set("ORPHAN_SWEEPER__SERVE__HOSTS", "[\"sweeper.example.org\"]");
    let token = world.program.token("approve").await;
    let api = Api::start(&world.program).await;
    api.get("/nowhere", &token).await.problem(404);
    api.get("/api/v1/nowhere", &token).await.problem(404);
    let refused = api.delete("/api/v1/runs", &token).await;
    refused.problem(405);
    assert!(refused.header("allow").contains("GET"), "{refused:?}");
    let at = "/api/v1/scopes/synthetic/runs";
    let post = || api.request("POST", at).bearer_auth(&token);
    api.send(post().body("{}")).await.problem(415);
    api.send(post().header("content-type", "application/json").body("{")).await.problem(400);
    api.send(post().json(&json!({ "command": "apply" }))).await.problem(422);
    api.send(post().json(&json!({ "command": "audit", "x": "y".repeat(300_000) }))).await.problem(413);
    api.send(api.request("GET", "/healthz").header("origin", "https://evil.example.org")).await.problem(403);
    api.send(api.request("GET", at).header("host", "evil.example.org").bearer_auth(&token)).await.problem(421);
    let known = api.send(api.request("GET", "/healthz").header("host", "sweeper.example.org")).await;
    assert_eq!(known.status, 200);
    assert!(known.headers.keys().all(|name| !name.as_str().starts_with("access-control-")), "no CORS: {known:?}");
    let preflight = api.request("OPTIONS", at).header("origin", "https://evil.example.org");
    api.send(preflight.header("access-control-request-method", "POST")).await.problem(403);
    // What is no HTTP at all ends that connection, and nothing else.
    assert_eq!(api.raw("NONSENSE\r\n\r\n").await.0, 400);
    assert_eq!(api.send(api.request("GET", "/healthz")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_says_what_cannot_be_reached_and_systemd_is_told() {
    let mut world = World::new().await;
    let folder = tempfile::tempdir().expect("a folder");
    let socket = std::os::unix::net::UnixDatagram::bind(folder.path().join("notify")).expect("bound");
    world.program.set("NOTIFY_SOCKET", &folder.path().join("notify").display().to_string());
    let told = |socket: &std::os::unix::net::UnixDatagram| {
        let mut buffer = [0; 200];
        let length = socket.recv(&mut buffer).expect("a message");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let api = Api::start(&world.program).await;
    assert!(told(&socket).starts_with("READY=1\n"));
    assert_eq!(api.send(api.request("GET", "/healthz")).await.with(200), json!({ "status": "ok" }));
    let ready = api.send(api.request("GET", "/readyz")).await.with(200);
    assert_eq!(ready["ready"], true, "{ready:#}");
    assert_eq!(api.stop().await, 0);
    assert!(told(&socket).starts_with("STOPPING=1\n"));

    world.program.set("ORPHAN_SWEEPER__STORE__ENDPOINT", "http://127.0.0.1:1");
    world.program.set("ORPHAN_SWEEPER_DATABASE_URL", "postgres://nobody:canary@127.0.0.1:1/none");
    let api = Api::start(&world.program).await;
    let answer = api.send(api.request("GET", "/readyz")).await;
    let state: Vec<(String, bool)> = answer.with(503)["checks"]
        .as_array()
        .expect("checks")
        .iter()
        .map(|check| (check["name"].as_str().expect("a name").to_owned(), check["ok"] == true))
        .collect();
    assert_eq!(state, [("ledger".into(), true), ("store".into(), false), ("database".into(), false)]);
    assert!(!String::from_utf8_lossy(&answer.bytes).contains("canary"));
    assert_eq!(api.send(api.request("GET", "/healthz")).await.status, 200);

    world.program.set("ORPHAN_SWEEPER__SERVE__LISTEN", &api.address);
    let ran = world.program.run(&["serve"]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("cannot listen at") && ran.stderr.contains("[serve] listen"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_alone_needs_no_schedule_and_tokens_have_their_names() {
    let world = World::new().await;
    world.program.remove_schedule();
    let token = world.program.token("read").await;
    let again = world.program.run(&["token", "create", "--name", "reader", "--scope", "read"]).await;
    assert_eq!(again.code, 2, "{again:?}");
    assert_eq!(again.stdout, "");
    let nameless = world.program.run(&["token", "create", "--name", " ", "--scope", "read"]).await;
    assert_eq!(nameless.code, 2, "{nameless:?}");
    assert_eq!(world.program.run(&["token", "revoke", "nobody"]).await.code, 2);
    let api = Api::start(&world.program).await;
    let scopes = api.get("/api/v1/scopes", &token).await.with(200);
    assert_eq!((&scopes[0]["name"], &scopes[0]["schedule"]), (&json!("synthetic"), &Value::Null));
    api.get("/api/v1/scopes/other", &token).await.problem(404);
    assert_eq!(api.stop().await, 0);
}

/// Sends what the description allows, and what it forbids, to a server with something behind every route.
#[tokio::test(flavor = "multi_thread")]
async fn schemathesis_finds_no_server_error_and_no_answer_that_is_not_described() {
    let platform = Platform::new().await;
    platform.world.orphan(1).await;
    platform.world.audit().await;
    let mut tokens = Vec::new();
    for scope in ["approve", "delete"] {
        tokens.push(platform.world.program.token(scope).await);
    }
    let api = Api::start(&platform.world.program).await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz.py");
    let mut command = std::process::Command::new("python3");
    command.arg(script).arg(&api.address).args(&tokens).stdin(std::process::Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("joined").expect("python3");
    let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}\n{}", api.log());
    assert!(told.contains("No issues found"), "{told}");
    assert!(!api.log().contains("panicked"), "{}", api.log());
    assert_eq!(api.stop().await, 0);
}
