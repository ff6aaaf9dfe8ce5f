use std::{cell::RefCell, fmt};

use serde::Serialize;
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{Format, Json, Writer},
        time::{FormatTime, SystemTime},
    },
    registry::LookupSpan,
};

/// The target of the log line of a request.
pub const REQUEST_TARGET: &str = "usage_proxy::request";

thread_local! {
    /// A reused buffer for the fields of a request's line.
    static FIELDS: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Formats events as one JSON object a line.
///
/// The line of a request has the same form as the others, but needs no map of serde and reuses its
/// buffer. That takes a third of the time, and nearly every hit writes one.
#[derive(Debug)]
pub(super) struct JsonLines {
    general: Format<Json>,
}

/// Appends fields to a JSON object that has some already.
struct FieldWriter<'a> {
    json: &'a mut Vec<u8>,
    result: serde_json::Result<()>,
}

// === impl JsonLines ===

impl Default for JsonLines {
    fn default() -> Self {
        Self {
            general: Format::default().json().flatten_event(true),
        }
    }
}

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        if metadata.target() != REQUEST_TARGET {
            return self.general.format_event(context, writer, event);
        }
        writer.write_str("{\"timestamp\":\"")?;
        SystemTime.format_time(&mut writer)?;
        writer.write_str("\",\"level\":\"")?;
        writer.write_str(metadata.level().as_str())?;
        writer.write_str("\"")?;
        let mut fields = FieldWriter {
            json: &mut FIELDS.take(),
            result: Ok(()),
        };
        fields.json.clear();
        event.record(&mut fields);
        let FieldWriter { json, result } = fields;
        let written = match (result, std::str::from_utf8(json)) {
            (Ok(()), Ok(json)) => writer.write_str(json),
            _ => Err(fmt::Error),
        };
        FIELDS.set(std::mem::take(json));
        written?;
        writer.write_str(",\"target\":\"")?;
        writer.write_str(REQUEST_TARGET)?;
        writer.write_str("\"}\n")
    }
}

// === impl FieldWriter ===

impl FieldWriter<'_> {
    fn append(&mut self, field: &Field, value: impl Serialize) {
        self.json.extend_from_slice(b",\"");
        self.json.extend_from_slice(field.name().as_bytes());
        self.json.extend_from_slice(b"\":");
        let appended = serde_json::to_writer(&mut *self.json, &value);
        if appended.is_err() {
            self.result = appended;
        }
    }
}

impl Visit for FieldWriter<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.append(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.append(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.append(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.append(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.append(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.append(field, format_args!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        sync::{Arc, Mutex},
    };

    use serde_json::Value;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn log(target_is_request: bool) -> String {
        macro_rules! event {
            ($target:expr) => {
                tracing::warn!(
                    target: $target,
                    path = "/\"\\\u{1}ż",
                    absent = None::<&str>,
                    status = 500_u16,
                    offset = -1_i64,
                    cached = true,
                    duration_seconds = 0.000_004_f64,
                    peer = %"::1\n",
                    ms.request_id = Some(tracing::field::display(7)),
                    "request"
                )
            };
        }
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .event_format(JsonLines::default())
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            if target_is_request {
                event!(REQUEST_TARGET);
            } else {
                event!("usage_proxy::other");
            }
        });
        let logged = lines.0.lock().unwrap().clone();
        String::from_utf8(logged).unwrap()
    }

    #[test]
    fn a_request_line_has_the_form_of_every_other_line() {
        let without_time = |line: &str| {
            let mut line: Value = serde_json::from_str(line).unwrap();
            let fields = line.as_object_mut().unwrap();
            let time = fields.remove("timestamp").unwrap();
            assert!(time.as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
            fields.remove("target").unwrap();
            line
        };

        let (request, other) = (log(true), log(false));

        assert_eq!(without_time(&request), without_time(&other));
        assert!(request.ends_with("\"target\":\"usage_proxy::request\"}\n"));
        assert_eq!(request.matches('\n').count(), 1);
    }
}
