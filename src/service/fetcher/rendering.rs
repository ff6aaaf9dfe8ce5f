//! Renders answers in the formats that are always kept.

use std::{error::Error, sync::Arc};

use super::Fetcher;
use crate::{
    domain::{CustomerId, CustomerList},
    offload,
    render::Rendered,
    service::{
        second_level::{AcceptedUsage, ROW_BYTES},
        source::{AnswerContent, SourceAnswer, SourceError, SourceErrorKind},
    },
};

/// An answer in the formats that are always kept, and the data that the second level keeps.
pub(super) struct RenderedAnswer {
    pub(super) rendered: Rendered,
    pub(super) accepted: Option<AcceptedData>,
}

/// The data of an answer that the second level keeps.
pub(super) enum AcceptedData {
    Usage(AcceptedUsage),
    Customers(Option<CustomerList>),
}

impl Fetcher {
    pub(super) async fn render_content(
        &self,
        customer: Option<CustomerId>,
        fetched: SourceAnswer,
    ) -> Result<RenderedAnswer, SourceError> {
        let seen_at = self.clock.wall_time();
        let call_ids = fetched.call_ids;
        let rows = match &fetched.content {
            AnswerContent::Usage { usage, .. } => usage.rows().len(),
            AnswerContent::Customers(list) => list.customers().len(),
            AnswerContent::Fleet(_) | AnswerContent::FleetDate(_) => 0,
            AnswerContent::Document { summary, .. } => summary.rows().len(),
        };
        let listed_name = match &fetched.content {
            AnswerContent::Usage { usage, .. } if usage.customer_name().is_none() => self
                .cache
                .customer_name(usage.customer_id(), self.clock.now()),
            _ => None,
        };
        let has_store = self.level.durable().is_some();
        let render = move || -> Result<RenderedAnswer, Box<dyn Error + Send + Sync>> {
            match fetched.content {
                AnswerContent::Usage { usage, native } => {
                    let rendered = Rendered::new(&usage, native.as_deref(), seen_at)?;
                    let rendered = match listed_name {
                        Some(name) => rendered.with_customer_name(&name, seen_at)?,
                        None => rendered,
                    };
                    let usage = Arc::new(usage);
                    Ok(RenderedAnswer {
                        rendered,
                        accepted: Some(AcceptedData::Usage(AcceptedUsage { usage, native })),
                    })
                }
                AnswerContent::Customers(list) => {
                    let kept = has_store.then(|| list.clone());
                    Ok(RenderedAnswer {
                        rendered: Rendered::of_customers(list, seen_at),
                        accepted: Some(AcceptedData::Customers(kept)),
                    })
                }
                AnswerContent::Document { summary, body } => Ok(RenderedAnswer {
                    rendered: Rendered::of_document(customer, &summary, &body, seen_at),
                    accepted: None,
                }),
                AnswerContent::Fleet(_) | AnswerContent::FleetDate(_) => {
                    Err("an answer for all customers cannot be served as one".into())
                }
            }
        };
        let rendered = offload::run_cpu_bound(rows * ROW_BYTES, render).await;
        drop(fetched.memory);
        rendered.map_err(|error| SourceError {
            status: Some(200),
            call_ids: Some(call_ids),
            ..SourceError::without_reply(SourceErrorKind::Malformed, error.to_string())
        })
    }
}
