# shellcheck shell=bash
# The recipes of deploy/store/README.md, each as it is written there, on the store of the demo

step_store() {
    need sqlite3 sqlite3
    need_store_python
    build

    mkdir -p "$scratch/demo" "$scratch/backup" "$scratch/recipes"
    TMPDIR=$scratch/demo start_demo
    STORE=$(echo "$scratch"/demo/*/usage.db)
    BACKUP=$scratch/backup
    export STORE BACKUP
    store_is_filled
    # A correction, so that the recipe for corrections has something to show.
    sqlite3 "$STORE" "INSERT INTO superseded_snapshot
        SELECT customer, day, source, 0, state, customer_name, fetched_at, confirmed_at FROM snapshot LIMIT 1;
        UPDATE snapshot SET revision = 2 WHERE (customer, day, source) IN
            (SELECT customer, day, source FROM superseded_snapshot)"
    store_recipes
    store_restores
    stop demo "$demo"
}

# pandas and DuckDB, in an environment of their own. Sets `store_python`.
need_store_python() {
    local folder=$target/tools/store
    store_python=$folder/bin/python
    "$store_python" -c 'import duckdb, pandas' 2>/dev/null && return
    python3 -c 'import ensurepip, venv' 2>/dev/null || apt_install python3 python3-venv
    python3 -m venv --clear "$folder"
    echo "installing pandas and DuckDB"
    "$store_python" -m pip install --quiet --no-input --disable-pip-version-check --only-binary=:all: \
        duckdb==1.5.5 pandas==2.3.3
}

# The demo fetches four months at its start.
store_is_filled() {
    local waited=0
    until (($(sqlite3 -readonly "$STORE" 'SELECT count(DISTINCT processed_date) FROM snapshots') > 60)); do
        ((++waited <= 300)) || fail_with demo "the demo's store is not filled within 30 s"
        sleep 0.1
    done
}

# Runs every block of shell and Python in the README; each must print something, or write a file.
store_recipes() {
    local number=0 file
    awk -v folder="$scratch/recipes" '
        /^```(sh|python)$/ { name = sprintf("%s/%02d.%s", folder, ++count, substr($0, 4)); next }
        /^```$/ { name = "" }
        name { print > name }' deploy/store/README.md
    for file in "$scratch"/recipes/*; do
        local run=(bash -euo pipefail "$file")
        [[ $file == *.sh ]] || run=("$store_python" "$file")
        (cd "$scratch/recipes" && "${run[@]}") >"$scratch/said" 2>&1 ||
            fail "deploy/store/README.md: $(cat "$file" "$scratch/said")"
        [[ -s $scratch/said ]] || grep -q -e '>newest.csv' -e BACKUP "$file" ||
            fail "deploy/store/README.md: it prints nothing: $(cat "$file")"
        number=$((number + 1))
    done
    ((number >= 8)) || fail "deploy/store/README.md has only $number recipes"
    (($(wc -l <"$scratch/recipes/newest.csv") > 20)) || fail "newest.csv has too few lines"
    echo "deploy/store/README.md: all $number recipes print something"
}

# A copy that was made while the service ran is whole, and readable as the store is.
store_restores() {
    local copy rows
    for copy in "$BACKUP"/*.db; do
        [[ $(sqlite3 "$copy" 'PRAGMA integrity_check') == ok ]] || fail "$copy is damaged"
        rows=$(sqlite3 "$copy" 'SELECT count(*) FROM newest_usage')
        ((rows == $(sqlite3 -readonly "$STORE" 'SELECT count(*) FROM newest_usage'))) ||
            fail "$copy has $rows rows"
    done
    echo "both kinds of backup are whole"
}
