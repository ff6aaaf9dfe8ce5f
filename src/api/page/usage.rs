use std::{iter::successors, pin::pin, sync::Arc};

use askama::Template;
use http::StatusCode;

use super::{
    Frame,
    ask::{self, Ask},
    customers::{self, Directory},
    respond,
    standing::Standing,
};
use crate::{
    api::{Arrived, Inner, Served, data, spans},
    domain::{Caller, CustomerId, ProcessedDate},
    offload,
    problem::Body,
    render::{
        Coding, Form, Prepared,
        adoption::{self, Adoption},
    },
    service::{Answer, Directive, Query},
    time_words::in_words,
};

/// Months of processed dates that Partner Center keeps.
const KEPT_MONTHS: i32 = 13;

/// Days that links pass over at most, where Partner Center is known to have nothing of them.
const MOST_PASSED_OVER: usize = 31;

/// A customer's usage.
#[derive(Template)]
#[template(path = "api/page/usage.html", config = "src/askama.toml")]
struct UsagePage {
    frame: Frame,
    adoption: Adoption,
    when: String,
    counted: String,
    standing: Standing,
    note: Option<&'static str>,
    /// True where the page reloads for the names of customers.
    list_is_being_fetched: bool,
    dates: Vec<DateLink>,
    is_dated: bool,
    json: String,
    table: String,
    chart: String,
    origin: String,
    wants_key: bool,
}

/// The list of customers, as far as it is known when the usage is.
enum Listing {
    Known(Directory),
    BeingFetched,
    Unavailable,
}

/// The dates before and after the one that is shown of which there may be counts.
struct Neighbours {
    earlier: Option<ProcessedDate>,
    later: Option<ProcessedDate>,
}

/// The same customer on another date.
struct DateLink {
    href: String,
    rel: &'static str,
    text: String,
}

/// Shows the usage of a customer.
pub(super) async fn show<B>(
    api: &Inner,
    arrived: &Arrived<'_, B>,
    caller: &Caller,
    ask: &Ask,
    customer: CustomerId,
) -> Served {
    let query = Query {
        customer_id: customer,
        form: Form::Simplified,
        date: ask.date,
        directive: arrived.directive(),
    };
    if let Some(span) = &arrived.span {
        spans::tell_customer(span, customer);
    }
    let trace = || arrived.call_trace();
    // Nobody waits for the names of others, nor asks for newer ones with newer numbers.
    let directive = match arrived.directive() {
        Directive::NoCache => Directive::Any,
        other => other,
    };
    let (answer, list) = with_what_is_there(
        api.usage.answer(query, caller, trace, arrived.at),
        customers::list(api, arrived, caller, directive),
    )
    .await;
    let answer = match answer {
        Ok(answer) => answer,
        Err(unanswered) => {
            return data::refuse_unanswered(api, arrived, ask.date, &unanswered);
        }
    };
    let listing = match list {
        Some(Ok(list)) => Listing::Known(Directory::new(&list, caller)),
        Some(Err(_)) => Listing::Unavailable,
        None => Listing::BeingFetched,
    };
    let shown = answer.held.prepared.processed_date().or(ask.date);
    let dressing = Dressing {
        frame: arrived.frame(None),
        listing,
        standing: Standing::of(&answer, ask.date),
        ask: ask.clone(),
        neighbours: neighbours(api, arrived, customer, shown, ask.today),
        customer,
        origin: arrived.origin(),
        wants_key: !caller.is_anonymous(),
    };
    let response = render(&answer, dressing).await;
    api.metrics.served(answer.held.age);
    data::serve(response, &answer, ask.date)
}

/// What is needed, and what is wanted besides if it is there by then.
async fn with_what_is_there<N, W>(
    needed: impl Future<Output = N>,
    wanted: impl Future<Output = W>,
) -> (N, Option<W>) {
    let (mut needed, mut wanted) = (pin!(needed), pin!(wanted));
    let mut there = None;
    loop {
        tokio::select! {
            biased;
            wanted = &mut wanted, if there.is_none() => there = Some(wanted),
            needed = &mut needed => return (needed, there),
        }
    }
}

/// Finds dates before and after `shown` that a link may lead to: Partner Center keeps them, they are
/// no newer than the newest, and Partner Center did not answer lately that it has nothing of them.
fn neighbours<B>(
    api: &Inner,
    arrived: &Arrived<'_, B>,
    customer: CustomerId,
    shown: Option<ProcessedDate>,
    today: ProcessedDate,
) -> Neighbours {
    let oldest = today.months_before(KEPT_MONTHS);
    let newest = api.usage.newest_date(customer, arrived.at);
    let may_have_counts =
        |date: &ProcessedDate| !api.usage.is_known_absent(customer, *date, arrived.at);
    let before = successors(shown, |date| date.previous());
    let after = successors(shown, |date| date.next());
    Neighbours {
        earlier: before
            .skip(1)
            .take(MOST_PASSED_OVER)
            .take_while(|date| *date >= oldest)
            .find(may_have_counts),
        later: after
            .skip(1)
            .take(MOST_PASSED_OVER)
            .take_while(|date| newest.is_some_and(|newest| *date <= newest))
            .find(may_have_counts),
    }
}

/// All that a page says beside the usage itself.
struct Dressing {
    frame: Frame,
    listing: Listing,
    standing: Standing,
    ask: Ask,
    neighbours: Neighbours,
    customer: CustomerId,
    origin: String,
    wants_key: bool,
}

async fn render(answer: &Answer, dressing: Dressing) -> http::Response<Body> {
    let prepared = Arc::clone(&answer.held.prepared);
    let bytes = prepared
        .ready(Form::Simplified, Coding::Identity)
        .map_or(0, |(_, encoded)| encoded.body().len());
    let searched = dressing.listing.directory().map(Directory::search_bytes);
    let bytes = bytes + searched.unwrap_or_default();
    let rendered = offload::run_cpu_bound(bytes, move || dressing.onto(&prepared)).await;
    respond(StatusCode::OK, rendered)
}

// === impl Dressing ===

impl Dressing {
    fn onto(self, prepared: &Prepared) -> askama::Result<String> {
        let adoption = prepared.adoption().map_err(askama::Error::custom)?;
        let mut adoption = adoption.ok_or(askama::Error::Fmt)?;
        let directory = self.listing.directory();
        if adoption.customer_name == adoption.customer_id
            && let Some(name) = directory.and_then(|directory| directory.name(self.customer))
        {
            adoption.customer_name = name;
        }
        let date = prepared.processed_date();
        let query = self
            .ask
            .date
            .map_or_else(String::new, |date| format!("?processedDate={date}"));
        let resource = format!("/v1/customers/{}/usage", self.customer);
        let page = UsagePage {
            when: date.map_or_else(|| "nothing processed".to_owned(), |date| date.to_string()),
            counted: self.counted(date),
            dates: self.dates(),
            is_dated: self.ask.date.is_some(),
            json: format!("{resource}{query}"),
            table: format!("{resource}/table.csv{query}"),
            chart: format!("{resource}/chart.svg{query}"),
            adoption,
            note: self.listing.note(),
            list_is_being_fetched: matches!(self.listing, Listing::BeingFetched),
            frame: Frame {
                form: Some(self.form()),
                ..self.frame
            },
            standing: self.standing,
            origin: self.origin,
            wants_key: self.wants_key,
        };
        page.render()
    }

    fn form(&self) -> super::Form {
        match self.listing.directory() {
            Some(directory) => Ask {
                customer: directory.handle(self.customer),
                ..self.ask
            }
            .form(directory.suggestions()),
            None => self.ask.form(Vec::new()),
        }
    }

    /// When Microsoft counted, which is another matter than when that was checked.
    fn counted(&self, date: Option<ProcessedDate>) -> String {
        let Some(date) = date else {
            return "Microsoft has no counts for this customer.".to_owned();
        };
        let past = self.ask.today.start().duration_since(date.start());
        let past = past.unsigned_abs();
        match past.as_secs() / 86_400 {
            0 => format!("Counts of {date}, today."),
            1 => format!("Counts of {date}, yesterday."),
            _ => format!("Counts of {date}, {} ago.", in_words(past)),
        }
    }

    fn dates(&self) -> Vec<DateLink> {
        let link = |date: ProcessedDate, rel, text: String| DateLink {
            href: ask::link(self.customer, Some(date)),
            rel,
            text,
        };
        let Neighbours { earlier, later } = self.neighbours;
        let earlier = earlier.map(|date| link(date, "prev", format!("Earlier: {date}")));
        let later = later.map(|date| link(date, "next", format!("Later: {date}")));
        let newest = self.ask.date.map(|_| DateLink {
            href: ask::link(self.customer, None),
            rel: "",
            text: "Newest".to_owned(),
        });
        [earlier, later, newest].into_iter().flatten().collect()
    }
}

// === impl Listing ===

impl Listing {
    fn directory(&self) -> Option<&Directory> {
        match self {
            Self::Known(directory) => Some(directory),
            Self::BeingFetched | Self::Unavailable => None,
        }
    }

    fn note(&self) -> Option<&'static str> {
        match self {
            Self::Known(_) => None,
            Self::BeingFetched => {
                Some("The list of customers is being fetched. This page reloads by itself.")
            }
            Self::Unavailable => Some(
                "The list of customers is not available right now. You can open other customers by \
                 their id.",
            ),
        }
    }
}

// === impl UsagePage ===

impl UsagePage {
    fn width(&self, length: &f64) -> String {
        format!("{length:.1}")
    }

    fn grouped(&self, number: &u64) -> String {
        adoption::grouped(*number)
    }
}
