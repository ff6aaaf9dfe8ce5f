//! Faults of bodies.

use bytes::Bytes;
use flate2::{Compress, Compression, Crc, FlushCompress};
use http::{
    HeaderValue,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE},
};
use serde_json::{Map, Value};

use super::call::SimulatedCall;
use crate::simulator::{
    faults::BodyFault,
    reply::{BodyDelivery, SimulatedReply},
};

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

const HTML_PAGE: &str = "<!DOCTYPE html>\n<html><head><title>Service unavailable</title></head>\
    <body><h1>Our services aren't available right now</h1></body></html>\n";

/// Bytes that occur in no UTF-8 text.
const GARBAGE_BYTES: &[u8] = b"\xff\xfe\x00\xc0\xc1\xf5 garbage \xff";

/// A customer that no call names.
const FOREIGN_CUSTOMER: &str = "F0E1A0F0-0000-4000-8000-00000000F0E1";

const DEFAULT_BODY_BYTES: usize = 64 * 1024 * 1024;

/// White space of a gzip bomb that is compressed once and then repeated.
const BOMB_CHUNK: usize = 64 * 1024;

/// Applies the faults of the call to its reply.
pub(super) fn apply_faults(reply: SimulatedReply, call: &SimulatedCall) -> SimulatedReply {
    let mut reply = match call.faults.body {
        Some(fault) => apply_body_fault(reply, fault, call),
        None => reply,
    };
    if call.faults.bom && !reply.body.starts_with(BYTE_ORDER_MARK) {
        reply.body = [BYTE_ORDER_MARK, &reply.body].concat().into();
    }
    if call.faults.close_mid_body {
        reply.delivery = BodyDelivery::Truncated;
    }
    reply
}

fn apply_body_fault(
    mut reply: SimulatedReply,
    fault: BodyFault,
    call: &SimulatedCall,
) -> SimulatedReply {
    let size = call.faults.body_bytes.unwrap_or(DEFAULT_BODY_BYTES);
    match fault {
        BodyFault::Truncated => reply.body.truncate(reply.body.len() / 2),
        BodyFault::Html => {
            let html = HeaderValue::from_static("text/html; charset=utf-8");
            reply.headers.insert(CONTENT_TYPE, html);
            reply.body = HTML_PAGE.into();
        }
        BodyFault::Empty => reply.body = Bytes::new(),
        BodyFault::Garbage => reply.body = GARBAGE_BYTES.into(),
        BodyFault::GzipBomb if accepts_gzip(call) => {
            let gzip = HeaderValue::from_static("gzip");
            reply.headers.insert(CONTENT_ENCODING, gzip);
            reply.body = gzip_bomb(size);
        }
        BodyFault::GzipBomb => {}
        BodyFault::Oversized => {
            let mut body = reply.body.to_vec();
            body.resize(size.max(body.len()), b' ');
            reply.body = body.into();
        }
        BodyFault::ForeignCustomer => edit_rows(&mut reply, add_foreign_row),
        BodyFault::MissingFields => edit_rows(&mut reply, |rows| remove_fields(rows)),
        BodyFault::NegativeCounts => edit_rows(&mut reply, |rows| set_counts(rows, (-1).into())),
        BodyFault::HugeCounts => edit_rows(&mut reply, |rows| set_counts(rows, u64::MAX.into())),
        BodyFault::WrongTotal => edit_body(&mut reply, |body| add_to_total(body, 1)),
        // The commercial call has applied these.
        BodyFault::RepeatedPage
        | BodyFault::ShiftedRows
        | BodyFault::ShrunkTotal
        | BodyFault::CutShort => {}
    }
    reply
}

fn accepts_gzip(call: &SimulatedCall) -> bool {
    call.header(ACCEPT_ENCODING.as_str())
        .is_some_and(|codings| codings.contains("gzip"))
}

/// Changes the JSON of an answer, if it is a JSON object.
fn edit_body(reply: &mut SimulatedReply, change: impl FnOnce(&mut Map<String, Value>)) {
    let json = reply.body.strip_prefix(BYTE_ORDER_MARK);
    let json = json.unwrap_or(&reply.body);
    let Ok(Value::Object(mut body)) = serde_json::from_slice(json) else {
        return;
    };
    change(&mut body);
    reply.body = Value::Object(body).to_string().into();
}

/// Changes the rows of an answer and keeps its total true.
fn edit_rows(reply: &mut SimulatedReply, change: impl FnOnce(&mut Vec<Value>)) {
    edit_body(reply, |body| {
        let added = match rows(body) {
            Some(rows) => {
                let before = rows.len();
                change(rows);
                rows.len() - before
            }
            None => 0,
        };
        add_to_total(body, added);
    });
}

/// Returns the rows, which have one of two names.
fn rows(body: &mut Map<String, Value>) -> Option<&mut Vec<Value>> {
    let name = ["items", "Value"]
        .into_iter()
        .find(|name| body.contains_key(*name))?;
    body.get_mut(name)?.as_array_mut()
}

fn add_to_total(body: &mut Map<String, Value>, added: usize) {
    let total = body.get("totalCount").and_then(Value::as_u64);
    if let Some(total) = total {
        body.insert("totalCount".into(), (total + added as u64).into());
    }
}

fn add_foreign_row(rows: &mut Vec<Value>) {
    let Some(Value::Object(mut row)) = rows.first().cloned() else {
        return;
    };
    let name = match row.contains_key("customerTenantId") {
        true => "customerTenantId",
        false => "customerId",
    };
    row.insert(name.into(), FOREIGN_CUSTOMER.into());
    row.insert("customerName".into(), "SOMEBODY ELSE".into());
    rows.push(Value::Object(row));
}

fn remove_fields(rows: &mut [Value]) {
    if let Some(Value::Object(row)) = rows.first_mut() {
        for name in [
            "licensesActive",
            "licenseActive",
            "licensesQualified",
            "processedDateTime",
        ] {
            row.remove(name);
        }
    }
}

fn set_counts(rows: &mut [Value], seats: Value) {
    let Some(Value::Object(row)) = rows.first_mut() else {
        return;
    };
    for name in ["licensesActive", "licenseActive", "licensesQualified"] {
        if let Some(held) = row.get_mut(name) {
            *held = seats.clone();
        }
    }
}

/// Returns `size` bytes of white space, rounded up to whole chunks, as gzip (RFC 1952).
///
/// A chunk that was flushed fully refers to nothing before it, so one compressed chunk can stand
/// there any number of times: making the bomb costs no more than sending it.
fn gzip_bomb(size: usize) -> Bytes {
    const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    const LAST_BLOCK: [u8; 2] = [3, 0];
    let blank = vec![b' '; BOMB_CHUNK];
    let mut chunk = Vec::with_capacity(BOMB_CHUNK);
    let compressed = Compress::new(Compression::best(), false).compress_vec(
        &blank,
        &mut chunk,
        FlushCompress::Full,
    );
    debug_assert!(compressed.is_ok(), "the chunk fits in itself uncompressed");
    let mut chunk_sum = Crc::new();
    chunk_sum.update(&blank);
    let mut sum = Crc::new();
    let mut bomb = HEADER.to_vec();
    for _ in 0..size.div_ceil(BOMB_CHUNK) {
        bomb.extend_from_slice(&chunk);
        sum.combine(&chunk_sum);
    }
    bomb.extend_from_slice(&LAST_BLOCK);
    bomb.extend_from_slice(&sum.sum().to_le_bytes());
    bomb.extend_from_slice(&sum.amount().to_le_bytes());
    bomb.into()
}
