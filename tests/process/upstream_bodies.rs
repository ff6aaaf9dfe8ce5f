//! Bodies of Partner Center that are far larger than they look: how much memory they take.

use std::{fs, io::Write};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, HeaderValue, StatusCode, header::CONTENT_ENCODING};
use usage_proxy::simulator::{CustomerOverride, Faults};
use uuid::Uuid;

use crate::support::{PartnerCenter, get};

const MIB: usize = 1024 * 1024;

/// Calls under way at once.
const CALLS: u128 = 8;

/// `upstream.max_body` is 32 MiB by default: so much of all bodies, 1 MiB for each call, what is
/// made of a body, and the program itself.
const MOST: usize = 192 * MIB;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_unpack_to_hundreds_of_megabytes_take_little_memory_over_all_calls() {
    // One is over the limit, the other not.
    let blank = gzip(&[b' '; MIB], 64);
    let rows = gzip(&b"{},".repeat(MIB / 3), 24);
    let partner_center = PartnerCenter::with(Faults::default()).await;
    let account = partner_center.account();
    let service = account.serve().await;

    for (case, body) in [("blanks", blank), ("rows of nothing", rows)] {
        let calls: Vec<_> = (1..=CALLS)
            .map(|customer| {
                let customer = Uuid::from_u128(customer);
                partner_center
                    .handle
                    .override_customer(customer, unpacked(&body));
                let path = format!("/v1/customers/{customer}/analytics/licenses/deployment");
                let url = format!("{}{path}", service.api);
                tokio::spawn(async move { get(&url, &[]).await })
            })
            .collect();
        for call in calls {
            let reply = call.await.unwrap();
            assert!([502, 503].contains(&reply.status), "{case}: {reply:?}");
        }
        let peak = peak_memory(service.running.id());
        println!("{case}: {} MiB", peak / MIB);
        assert!(peak < MOST, "{case}: {} MiB", peak / MIB);
    }
}

/// `{"items":[`, and then the same part again and again.
fn gzip(part: &[u8], times: usize) -> Bytes {
    let mut body = GzEncoder::new(Vec::new(), Compression::fast());
    body.write_all(b"{\"items\":[").unwrap();
    for _ in 0..times {
        body.write_all(part).unwrap();
    }
    body.finish().unwrap().into()
}

fn unpacked(body: &Bytes) -> CustomerOverride {
    CustomerOverride::Status {
        status: StatusCode::OK,
        body: body.clone(),
        headers: HeaderMap::from_iter([(CONTENT_ENCODING, HeaderValue::from_static("gzip"))]),
    }
}

/// The most memory that a process has had so far.
fn peak_memory(process: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = peak.unwrap().trim().trim_end_matches(" kB");
    kibibytes.parse::<usize>().unwrap() * 1024
}
