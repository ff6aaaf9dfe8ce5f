//! `demo` and `simulate`: what is printed works.

use std::process::Command;

use crate::support::{Running, get, usage_proxy};

/// The demo, once it has said what to try.
async fn demo() -> Running {
    let mut command = usage_proxy();
    command.args(["demo", "--listen", "127.0.0.1:0"]);
    command.args(["--admin-listen", "127.0.0.1:0"]);
    let demo = Running::start(&mut command);
    demo.stdout.line_with("Ctrl-C ends it").await;
    demo
}

#[tokio::test]
async fn the_demo_prints_lines_that_work() {
    let mut demo = demo().await;

    let printed = demo.stdout.text();
    let lines: Vec<_> = printed
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("curl "))
        .collect();
    let url = |line: &str| {
        let from = line.find("http://").unwrap();
        line[from..].trim_end_matches('\'').to_owned()
    };
    assert_eq!(lines.len(), 4, "{printed}");
    let generated = get(&url(lines[0]), &[]).await;
    let cache = get(&url(lines[1]), &[]).await;
    let documented = get(&url(lines[2]), &[]).await;
    let csv = get(&url(lines[3]), &[("accept", "text/csv")]).await;
    demo.signal("INT");

    assert_eq!(generated.status, 200);
    assert!(generated.body.contains("Żubr Logistyka"), "{generated:?}");
    assert!(printed.contains(" get zubr --url http://"), "{printed}");
    assert_eq!(documented.status, 200);
    assert!(
        documented.body.contains("DT DEMO CSP CUSTOMER 005"),
        "{documented:?}"
    );
    assert_eq!(csv.status, 200, "{csv:?}");
    assert!(csv.head.contains("text/csv"), "{csv:?}");
    assert!(lines[3].contains("-H 'Accept: text/csv'"), "{printed}");
    // One, or more if the fleet is refreshed already.
    assert!(!cache.body.contains("\"entries\":0"), "{cache:?}");
    assert_eq!(demo.ended().await.code(), Some(0));
}

#[tokio::test]
async fn the_lines_of_the_demo_are_valid_in_a_shell() {
    let mut demo = demo().await;

    let printed = demo.stdout.text();
    let lines: Vec<_> = printed
        .lines()
        .filter(|line| line.contains("curl ") || line.contains(" get "))
        .collect();
    assert!(lines.iter().any(|line| line.contains(" get ")), "{printed}");
    for line in lines {
        let more = if line.contains("curl ") {
            "--noproxy '*' --fail --max-time 30"
        } else {
            ""
        };
        let output = Command::new("sh")
            .arg("-c")
            .arg(format!("{line} {more}"))
            .output()
            .unwrap();

        assert!(
            output.status.success(),
            "{line} (tests/run installs curl): {output:?}"
        );
        assert!(!output.stdout.is_empty(), "{line}");
    }
    demo.signal("TERM");
    assert_eq!(demo.ended().await.code(), Some(0));
}

#[tokio::test]
async fn the_simulator_prints_its_address_and_starts_with_the_given_faults() {
    let mut command = usage_proxy();
    command.args(["simulate", "--listen", "127.0.0.1:0", "--customers", "3"]);
    command.args(["--fault", "status=503", "--fault", "retry_after=7"]);
    let mut simulator = Running::start(&mut command);

    let line = simulator.stdout.line_with("upstream.base_url").await;
    let base_url = line.split('"').nth(1).unwrap();
    let index = get(&format!("{base_url}/_simulator"), &[]).await;
    let refused = get(&format!("{base_url}/v1/customers?size=1"), &[]).await;
    simulator.signal("TERM");

    assert_eq!(index.status, 200);
    assert!(index.body.contains("\"count\":4"), "{}", index.body);
    assert_eq!(refused.status, 503);
    assert!(refused.head.contains("retry-after: 7"), "{}", refused.head);
    assert_eq!(simulator.ended().await.code(), Some(0));
}
