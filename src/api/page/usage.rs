use std::sync::Arc;

use askama::Template;
use http::StatusCode;

use super::{
    Frame,
    ask::{self, Ask},
    customers::{self, Directory},
    duration::in_words,
    respond,
    standing::Standing,
};
use crate::{
    api::{Arrived, Inner, Served, data, spans},
    domain::{Caller, CustomerId, ProcessedDate},
    offload,
    problem::Body,
    representation::{
        Coding, Form, Prepared,
        adoption::{self, Adoption},
    },
    usage::{Answer, Query},
};

/// A customer's usage.
#[derive(Template)]
#[template(path = "api/page/usage.html", config = "src/askama.toml")]
struct UsagePage {
    frame: Frame,
    adoption: Adoption,
    when: String,
    counted: String,
    standing: Standing,
    /// What else is to be known.
    note: Option<String>,
    dates: Vec<DateLink>,
    is_dated: bool,
    json: String,
    table: String,
    chart: String,
    origin: String,
    wants_key: bool,
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
    let (answer, listed) = tokio::join!(
        api.usage.answer(query, caller, trace, arrived.at),
        customers::list(api, arrived, caller),
    );
    let answer = match answer {
        Ok(answer) => answer,
        Err(unanswered) => {
            return data::refuse_unanswered(api, arrived, ask.date, &unanswered);
        }
    };
    let listed = listed.map(|listed| listed.customers);
    let directory = listed.as_deref().map(Directory::new);
    let form = match &directory {
        Ok(directory) => Ask {
            customer: directory.handle(customer),
            ..*ask
        }
        .form(directory.suggestions()),
        Err(_) => ask.form(Vec::new()),
    };
    let note = directory.err().map(|_| {
        "The list of customers cannot be had right now. Other customers can be looked at by their id."
            .to_owned()
    });
    let dressing = Dressing {
        frame: arrived.frame(Some(form)),
        note,
        standing: Standing::of(&answer, ask.date),
        asked: ask.date,
        today: ask.today,
        customer,
        origin: arrived.origin(),
        wants_key: !caller.is_anonymous(),
    };
    let response = render(&answer, dressing).await;
    api.metrics.served(answer.held.age);
    data::serve(response, &answer, ask.date)
}

/// All that a page says beside the usage itself.
struct Dressing {
    frame: Frame,
    note: Option<String>,
    standing: Standing,
    asked: Option<ProcessedDate>,
    today: ProcessedDate,
    customer: CustomerId,
    origin: String,
    wants_key: bool,
}

async fn render(answer: &Answer, dressing: Dressing) -> http::Response<Body> {
    let prepared = Arc::clone(&answer.held.prepared);
    let bytes = prepared
        .ready(Form::Simplified, Coding::Identity)
        .map_or(0, |(_, encoded)| encoded.body().len());
    let rendered = offload::work_on(bytes, move || dressing.onto(&prepared)).await;
    respond(StatusCode::OK, rendered)
}

// === impl Dressing ===

impl Dressing {
    fn onto(self, prepared: &Prepared) -> askama::Result<String> {
        let adoption = prepared.adoption().map_err(askama::Error::custom)?;
        let adoption = adoption.ok_or(askama::Error::Fmt)?;
        let date = prepared.processed_date();
        let query = self
            .asked
            .map_or_else(String::new, |date| format!("?processedDate={date}"));
        let resource = format!("/v1/customers/{}/usage", self.customer);
        let page = UsagePage {
            when: date.map_or_else(|| "nothing processed".to_owned(), |date| date.to_string()),
            counted: self.counted(date),
            dates: self.dates(date),
            is_dated: self.asked.is_some(),
            json: format!("{resource}{query}"),
            table: format!("{resource}/table.csv{query}"),
            chart: format!("{resource}/chart.svg{query}"),
            adoption,
            frame: self.frame,
            standing: self.standing,
            note: self.note,
            origin: self.origin,
            wants_key: self.wants_key,
        };
        page.render()
    }

    /// When the seats were counted, which is another matter than when we were told.
    fn counted(&self, date: Option<ProcessedDate>) -> String {
        let Some(date) = date else {
            return "Microsoft has processed nothing for this customer.".to_owned();
        };
        let past = self
            .today
            .start()
            .duration_since(date.start())
            .unsigned_abs();
        let ago = match past.as_secs() {
            0 => "today".to_owned(),
            _ => format!("{} ago", in_words(past)),
        };
        match self.asked {
            Some(_) => format!("Counted by Microsoft on {date}, {ago}."),
            None => format!("Counted by Microsoft on {date}, {ago}: the newest there is."),
        }
    }

    fn dates(&self, date: Option<ProcessedDate>) -> Vec<DateLink> {
        let shown = date.or(self.asked);
        let link = |date: ProcessedDate, rel, text: String| DateLink {
            href: ask::link(self.customer, Some(date)),
            rel,
            text,
        };
        let earlier = shown.and_then(ProcessedDate::previous);
        let earlier = earlier.map(|date| link(date, "prev", format!("Earlier: {date}")));
        let later = shown
            .filter(|_| self.asked.is_some())
            .and_then(ProcessedDate::next);
        let later = later.filter(|date| *date <= self.today);
        let later = later.map(|date| link(date, "next", format!("Later: {date}")));
        let newest = self.asked.map(|_| DateLink {
            href: ask::link(self.customer, None),
            rel: "",
            text: "Newest".to_owned(),
        });
        [earlier, later, newest].into_iter().flatten().collect()
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
