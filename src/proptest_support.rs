//! The configuration of property tests, and values that several of them use.

use http::HeaderValue;
use proptest::{prelude::*, test_runner::FileFailurePersistence};

/// As the environment says (`PROPTEST_CASES` for more of them), with the seeds of cases that ever
/// failed kept under `tests/regressions`, a file for each source file: they belong into the commit,
/// and are tried first from then on.
pub(crate) fn proptest_config() -> ProptestConfig {
    let seeds = FileFailurePersistence::SourceParallel("tests/regressions");
    ProptestConfig {
        failure_persistence: Some(Box::new(seeds)),
        ..ProptestConfig::default()
    }
}

/// Every value that a header may have, in any bytes that HTTP lets through.
pub(crate) fn any_header_value() -> impl Strategy<Value = HeaderValue> {
    let byte = prop_oneof![
        8 => b' '..=b'~',
        1 => Just(b'\t'),
        1 => 128..=u8::MAX,
    ];
    prop::collection::vec(byte, 0..100).prop_map(|bytes| HeaderValue::from_bytes(&bytes).unwrap())
}
