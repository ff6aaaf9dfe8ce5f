use std::fmt::Display;

use super::Form;
use crate::{
    api::extract,
    domain::ProcessedDate,
    problem::{Kind, Problem, excerpt},
    representation::adoption::displayable,
};

/// What a page is asked for, by its query: `customer` and `date`, each of which may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    /// A name, a part of one, or an id; empty for none.
    pub(super) customer: String,
    /// The newest where absent.
    pub(super) date: Option<ProcessedDate>,
    pub(super) today: ProcessedDate,
}

// === impl Ask ===

impl Ask {
    pub(super) fn read(query: Option<&str>, today: ProcessedDate) -> Result<Self, Problem> {
        let (mut customer, mut date) = (None, None);
        for (name, value) in parameters(query) {
            let found = match &*name {
                "customer" => &mut customer,
                "date" => &mut date,
                _ => {
                    return Err(Problem::new(
                        Kind::UnknownParameter,
                        format!(
                            "the query has {:?}; expected customer=…, date=YYYY-MM-DD or both",
                            excerpt(&name)
                        ),
                    ));
                }
            };
            if found.replace(value).is_some() {
                return Err(Problem::new(
                    Kind::DuplicateParameter,
                    format!("the query has {name} more than once; expected it once"),
                ));
            }
        }
        let date = date.filter(|date| !date.is_empty());
        let date = date
            .map(|date| extract::date("date", &date, today))
            .transpose()?;
        Ok(Self {
            customer: customer.unwrap_or_default().trim().to_owned(),
            date,
            today,
        })
    }

    /// The form that asks so.
    pub(super) fn form(&self, suggestions: Vec<String>) -> Form {
        Form {
            customer: displayable(&self.customer),
            date: self.date.map_or_else(String::new, |date| date.to_string()),
            today: Some(self.today),
            suggestions,
        }
    }
}

// === impl Form ===

impl Form {
    /// With what may be had of a query whatever is wrong with it, so that its sender need not type
    /// it again.
    pub(super) fn leniently(query: Option<&str>) -> Self {
        let date = typed(query, "date").and_then(|date| ProcessedDate::parse(&date).ok());
        Self {
            customer: typed(query, "customer").map_or_else(String::new, |typed| excerpt(&typed)),
            date: date.map_or_else(String::new, |date| date.to_string()),
            today: None,
            suggestions: Vec::new(),
        }
    }
}

/// What was typed for this, whatever is wrong with the rest.
fn typed(query: Option<&str>, name: &str) -> Option<String> {
    let (_, value) = parameters(query).find(|(found, _)| found == name)?;
    Some(displayable(&value)).filter(|typed| !typed.is_empty())
}

/// The newest of the customer that was typed.
pub(super) fn newest(query: Option<&str>) -> Option<String> {
    let customer = typed(query, "customer")?;
    let customer: String = url::form_urlencoded::byte_serialize(customer.as_bytes()).collect();
    Some(link(customer, None))
}

/// The page of a customer and a date.
pub(super) fn link(customer: impl Display, date: Option<ProcessedDate>) -> String {
    match date {
        Some(date) => format!("/?customer={customer}&date={date}"),
        None => format!("/?customer={customer}"),
    }
}

fn parameters(query: Option<&str>) -> url::form_urlencoded::Parse<'_> {
    url::form_urlencoded::parse(query.unwrap_or_default().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn today() -> ProcessedDate {
        ProcessedDate::parse("2026-11-22").unwrap()
    }

    #[test]
    fn what_a_form_leaves_empty_is_absent() {
        for query in [None, Some(""), Some("customer="), Some("customer=+&date=")] {
            let ask = Ask::read(query, today()).unwrap();

            assert_eq!((&*ask.customer, ask.date), ("", None), "{query:?}");
        }
        let ask = Ask::read(Some("customer=M%C3%BCller+%26+S&date=2026-11-22"), today()).unwrap();
        assert_eq!((&*ask.customer, ask.date), ("Müller & S", Some(today())));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (query, kind) in [
            ("customer=a&customer=b", "duplicate-parameter"),
            ("processedDate=2026-11-22", "unknown-parameter"),
            ("date=2026-11-23", "processed-date"),
            ("date=yesterday", "processed-date"),
        ] {
            let problem = Ask::read(Some(query), today()).unwrap_err();

            assert_eq!(problem.name(), kind, "{query}");
        }
    }
}
