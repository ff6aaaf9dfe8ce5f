use std::{pin::pin, sync::Arc};

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
    usage::{Answer, Directive, Query},
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
    let list = list.and_then(Result::ok);
    let dressing = Dressing {
        frame: arrived.frame(None),
        directory: list.map(|list| Directory::new(&list, caller)),
        standing: Standing::of(&answer, ask.date),
        ask: ask.clone(),
        newest: api.usage.newest_date(customer, arrived.at),
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

/// All that a page says beside the usage itself.
struct Dressing {
    frame: Frame,
    /// `None` where the list of customers is not at hand.
    directory: Option<Directory>,
    standing: Standing,
    ask: Ask,
    /// The newest date, where that is known.
    newest: Option<ProcessedDate>,
    customer: CustomerId,
    origin: String,
    wants_key: bool,
}

async fn render(answer: &Answer, dressing: Dressing) -> http::Response<Body> {
    let prepared = Arc::clone(&answer.held.prepared);
    let bytes = prepared
        .ready(Form::Simplified, Coding::Identity)
        .map_or(0, |(_, encoded)| encoded.body().len());
    let searched = dressing.directory.as_ref().map(Directory::search_bytes);
    let bytes = bytes + searched.unwrap_or_default();
    let rendered = offload::work_on(bytes, move || dressing.onto(&prepared)).await;
    respond(StatusCode::OK, rendered)
}

// === impl Dressing ===

impl Dressing {
    fn onto(self, prepared: &Prepared) -> askama::Result<String> {
        let adoption = prepared.adoption().map_err(askama::Error::custom)?;
        let mut adoption = adoption.ok_or(askama::Error::Fmt)?;
        let directory = self.directory.as_ref();
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
            dates: self.dates(date),
            is_dated: self.ask.date.is_some(),
            json: format!("{resource}{query}"),
            table: format!("{resource}/table.csv{query}"),
            chart: format!("{resource}/chart.svg{query}"),
            adoption,
            note: self.note(),
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
        match &self.directory {
            Some(directory) => Ask {
                customer: directory.handle(self.customer),
                ..self.ask
            }
            .form(directory.suggestions()),
            None => self.ask.form(Vec::new()),
        }
    }

    fn note(&self) -> Option<String> {
        let note = "The list of customers cannot be had right now. Other customers can be looked at \
                    by their id.";
        self.directory.is_none().then(|| note.to_owned())
    }

    /// When the seats were counted, which is another matter than when we were told.
    fn counted(&self, date: Option<ProcessedDate>) -> String {
        let Some(date) = date else {
            return "Microsoft has processed nothing for this customer.".to_owned();
        };
        let past = self
            .ask
            .today
            .start()
            .duration_since(date.start())
            .unsigned_abs();
        let ago = match past.as_secs() {
            0 => "today".to_owned(),
            _ => format!("{} ago", in_words(past)),
        };
        if self.ask.date.is_none() || self.newest == Some(date) {
            format!("Counted by Microsoft on {date}, {ago}: the newest there is.")
        } else {
            format!("Counted by Microsoft on {date}, {ago}.")
        }
    }

    fn dates(&self, date: Option<ProcessedDate>) -> Vec<DateLink> {
        let shown = date.or(self.ask.date);
        let link = |date: ProcessedDate, rel, text: String| DateLink {
            href: ask::link(self.customer, Some(date)),
            rel,
            text,
        };
        let earlier = shown.and_then(ProcessedDate::previous);
        let earlier = earlier.map(|date| link(date, "prev", format!("Earlier: {date}")));
        let later = shown
            .filter(|_| self.ask.date.is_some())
            .and_then(ProcessedDate::next);
        let newest = self.newest.unwrap_or(self.ask.today);
        let later = later.filter(|date| *date <= newest.min(self.ask.today));
        let later = later.map(|date| link(date, "next", format!("Later: {date}")));
        let newest = self.ask.date.map(|_| DateLink {
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
