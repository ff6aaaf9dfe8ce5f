use std::collections::HashSet;

use axum::Extension;

use crate::{
    cache::PurgeMode,
    domain::{CustomerId, ProcessedDate},
    problem::{Problem, ProblemKind},
    text::excerpt,
};

/// The query parameters of all routes.
#[derive(Debug)]
pub(super) struct AdminQuery {
    pub(super) customer_id: Option<CustomerId>,
    pub(super) processed_date: Option<ProcessedDate>,
    pub(super) from: Option<ProcessedDate>,
    pub(super) to: Option<ProcessedDate>,
    pub(super) mode: PurgeMode,
}

// === impl AdminQuery ===

impl AdminQuery {
    /// Reads a query that has only these parameters, each at most once.
    pub(super) fn parse(query: Option<&str>, allowed: &[&str]) -> Result<Self, Extension<Problem>> {
        let mut parsed = Self {
            customer_id: None,
            processed_date: None,
            from: None,
            to: None,
            mode: PurgeMode::Soft,
        };
        let mut names = HashSet::new();
        for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            if !allowed.contains(&name.as_ref()) {
                let expected = match allowed {
                    [] => "no parameter".to_owned(),
                    names => format!("{} or none", names.join(", ")),
                };
                let name = excerpt(&name);
                let detail = format!("the query has {name:?}; expected {expected}");
                return Err(bad_request(detail));
            }
            if !names.insert(name.to_string()) {
                return Err(bad_request(format!("the query has {name} more than once")));
            }
            parsed.set(&name, &value).map_err(|expected| {
                bad_request(format!("{name} is {:?}; {expected}", excerpt(&value)))
            })?;
        }
        Ok(parsed)
    }

    /// Returns the expected value as an error.
    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "customer" => {
                let id = CustomerId::parse(value).map_err(|invalid| invalid.to_string())?;
                self.customer_id = Some(id);
            }
            "processedDate" | "from" | "to" => {
                let date = ProcessedDate::parse(value).map_err(|invalid| invalid.to_string())?;
                let parameter = match name {
                    "from" => &mut self.from,
                    "to" => &mut self.to,
                    _ => &mut self.processed_date,
                };
                *parameter = Some(date);
            }
            _ => {
                self.mode = match value {
                    "true" => PurgeMode::Hard,
                    "false" => PurgeMode::Soft,
                    _ => return Err("expected true or false".to_owned()),
                };
            }
        }
        Ok(())
    }
}

pub(super) fn bad_request(detail: String) -> Extension<Problem> {
    Extension(Problem::new(ProblemKind::BadRequest, detail))
}
