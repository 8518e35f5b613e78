# One door for every task.

# Serves on 127.0.0.1:8888 with a log under ./data.
run *arguments:
    cargo run -- {{arguments}}

# Every test, the ones on a real Kafka included.
test *arguments:
    tests/run {{arguments}}

# Only the tests whose names speak of Kafka.
test-kafka:
    tests/run kafka

# Plays readers and producers: `just load smoke`, `just load latency --url http://127.0.0.1:8888`.
load scenario *arguments:
    cargo run --release -p loadtest -- {{scenario}} {{arguments}}

lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

ci:
    .ci/run
