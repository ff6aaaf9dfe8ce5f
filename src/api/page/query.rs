use std::{fmt::Display, num::NonZeroU32};

use super::SearchForm;
use crate::{
    api::extract,
    domain::ProcessedDate,
    problem::{Problem, ProblemKind},
    render::display_text,
    text::excerpt,
};

/// The query of a page: `customer` and `date`, each of which may be empty, and
/// `page`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PageQuery {
    /// A name, a part of one, or an id; empty for none.
    pub(super) customer: String,
    /// The newest where absent.
    pub(super) date: Option<ProcessedDate>,
    pub(super) today: ProcessedDate,
    /// Which page of the list of customers.
    pub(super) page: NonZeroU32,
}

// === impl Ask ===

impl PageQuery {
    pub(super) fn parse(query: Option<&str>, today: ProcessedDate) -> Result<Self, Problem> {
        let (mut customer, mut date, mut page) = (None, None, None);
        for (name, value) in parameters(query) {
            let found = match &*name {
                "customer" => &mut customer,
                "date" => &mut date,
                "page" => &mut page,
                _ => {
                    return Err(Problem::new(
                        ProblemKind::UnknownParameter,
                        format!(
                            "the query has {:?}; expected customer=…, date=YYYY-MM-DD or page=…",
                            excerpt(&name)
                        ),
                    ));
                }
            };
            if found.replace(value).is_some() {
                return Err(Problem::new(
                    ProblemKind::DuplicateParameter,
                    format!("the query has {name} more than once; expected it once"),
                ));
            }
        }
        let date = date.filter(|date| !date.is_empty());
        let date = date
            .map(|date| extract::parse_date("date", &date, today))
            .transpose()?;
        Ok(Self {
            customer: customer.unwrap_or_default().trim().to_owned(),
            date,
            today,
            page: page.map_or(Ok(NonZeroU32::MIN), |page| page_number(&page))?,
        })
    }

    /// Another page of the list that is asked for.
    pub(super) fn list_page_link(&self, page: usize) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        if !self.customer.is_empty() {
            query.append_pair("customer", &self.customer);
        }
        if let Some(date) = self.date {
            query.append_pair("date", &date.to_string());
        }
        if page > 1 {
            query.append_pair("page", &page.to_string());
        }
        match query.finish() {
            query if query.is_empty() => "/".to_owned(),
            query => format!("/?{query}"),
        }
    }

    /// The form that asks so.
    pub(super) fn search_form(&self, suggestions: Vec<String>) -> SearchForm {
        SearchForm {
            customer: display_text(&self.customer),
            date: self.date.map_or_else(String::new, |date| date.to_string()),
            today: Some(self.today),
            suggestions,
        }
    }
}

// === impl Form ===

impl SearchForm {
    /// With what may be had of a query whatever is wrong with it, so that its sender need not type
    /// it again.
    pub(super) fn from_invalid_query(query: Option<&str>) -> Self {
        let date = typed_value(query, "date").and_then(|date| ProcessedDate::parse(&date).ok());
        Self {
            customer: typed_value(query, "customer")
                .map_or_else(String::new, |typed| excerpt(&typed).into_owned()),
            date: date.map_or_else(String::new, |date| date.to_string()),
            today: None,
            suggestions: Vec::new(),
        }
    }
}

fn page_number(text: &str) -> Result<NonZeroU32, Problem> {
    text.parse().map_err(|_| {
        Problem::new(
            ProblemKind::PageNumber,
            format!(
                "page is {:?}; expected a whole number, 1 or more",
                excerpt(text)
            ),
        )
    })
}

/// What was typed for this, whatever is wrong with the rest.
fn typed_value(query: Option<&str>, name: &str) -> Option<String> {
    let (_, value) = parameters(query).find(|(found, _)| found == name)?;
    Some(display_text(&value)).filter(|typed| !typed.is_empty())
}

/// The newest of the customer that was typed.
pub(super) fn newest_link(query: Option<&str>) -> Option<String> {
    let customer = typed_value(query, "customer")?;
    let customer: String = url::form_urlencoded::byte_serialize(customer.as_bytes()).collect();
    Some(customer_link(customer, None))
}

/// The page of a customer and a date.
pub(super) fn customer_link(customer: impl Display, date: Option<ProcessedDate>) -> String {
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
    fn empty_form_fields_count_as_absent() {
        for query in [None, Some(""), Some("customer="), Some("customer=+&date=")] {
            let ask = PageQuery::parse(query, today()).unwrap();

            assert_eq!((&*ask.customer, ask.date), ("", None), "{query:?}");
        }
        let ask =
            PageQuery::parse(Some("customer=M%C3%BCller+%26+S&date=2026-11-22"), today()).unwrap();
        assert_eq!((&*ask.customer, ask.date), ("Müller & S", Some(today())));
    }

    #[test]
    fn invalid_page_queries_are_rejected() {
        for (query, kind) in [
            ("customer=a&customer=b", "duplicate-parameter"),
            ("processedDate=2026-11-22", "unknown-parameter"),
            ("date=2026-11-23", "processed-date"),
            ("date=yesterday", "processed-date"),
        ] {
            let problem = PageQuery::parse(Some(query), today()).unwrap_err();

            assert_eq!(problem.name(), kind, "{query}");
        }
    }
}
