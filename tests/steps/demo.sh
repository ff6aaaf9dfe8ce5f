# shellcheck shell=bash
# The demo, as the README tells people to try it

step_demo() {
    need curl curl ca-certificates
    need jq jq
    need_prometheus
    build

    mkdir "$scratch/demo"
    TMPDIR=$scratch/demo start_demo

    local line
    line=$(grep -m 1 -o 'curl .*4d3cf487.*' "$scratch/demo.out") || demo_failed "printed no line to try"
    bash -c "$line" >"$scratch/answer" || demo_failed "does not answer to: $line"
    jq -e '.processedDate == "2017-03-09" and (.products | length) == 3' "$scratch/answer" >/dev/null ||
        demo_failed "answered something else: $(cat "$scratch/answer")"
    echo "answers to: $line"

    curl -sS --fail "$admin/metrics" >"$scratch/metrics" || demo_failed "gives no metrics"
    grep -q '^usage_proxy_' "$scratch/metrics" || demo_failed "has no metrics of its own"
    promtool check metrics <"$scratch/metrics" || demo_failed "has metrics that promtool objects to"
    echo "promtool has no objection to $(grep -c '^# TYPE' "$scratch/metrics") metrics"

    stop demo "$demo"
    [[ -z $(ls -A "$scratch/demo") ]] || demo_failed "left its secrets behind"
    echo "ends at SIGTERM with 0, and leaves nothing behind"
}

demo_failed() {
    fail_with demo "the demo $1"
}
