use std::{sync::Barrier, thread};

use serde_json::Value;

use super::*;
use crate::{
    domain::{ListedCustomer, ProcessedDate},
    render::{Coding, Prepared},
};

const NAMES: [&str; 7] = [
    "Adatum",
    "Contoso",
    "Fabrikam",
    "Litware",
    "Proseware",
    "Tailspin",
    "Wingtip",
];

fn id(number: usize) -> CustomerId {
    CustomerId::parse(&format!("00000000-0000-0000-0000-{number:012}")).unwrap()
}

/// The customers of these numbers.
fn list(numbers: &[usize]) -> Prepared {
    let listed = numbers.iter().map(|number| ListedCustomer {
        entry: CustomerEntry {
            id: id(*number),
            name: NAMES[*number].into(),
            domain: None,
        },
        raw: format!("{{\"id\": \"{}\", \"number\": {number}}}", id(*number)).into(),
    });
    let list = CustomerList::new(listed.collect());
    let seen_at = ProcessedDate::parse("2026-11-22").unwrap().start();
    Prepared::of_customers(list, seen_at).unwrap()
}

fn long_list(customers: usize) -> Prepared {
    let listed = (0..customers).map(|number| ListedCustomer {
        entry: CustomerEntry {
            id: id(number),
            name: format!("Customer {number:06}"),
            domain: None,
        },
        raw: format!("{{\"id\": \"{}\", \"number\": {number}}}", id(number)).into(),
    });
    let seen_at = ProcessedDate::parse("2026-11-22").unwrap().start();
    Prepared::of_customers(CustomerList::new(listed.collect()), seen_at).unwrap()
}

/// The part that a caller is shown who may see so many of the first.
fn show(prepared: &Prepared, visible: usize, page: Option<&Page>) -> Arc<Document> {
    let may_see = |customer| customer < id(visible);
    let shown = prepared.show_customers(may_see, page, Coding::Identity);
    match shown.unwrap().unwrap() {
        Shown::Part(part) => part,
        Shown::Whole => panic!("expected a part"),
    }
}

fn page(size: u32, token: Option<&str>) -> Page {
    Page {
        size: NonZeroU32::new(size),
        filter: None,
        after: token.map(|token| Continuation::parse(token.as_bytes()).unwrap().after),
    }
}

/// What a caller who may see these is shown.
fn shown(prepared: &Prepared, visible: &[usize], page: Option<&Page>) -> Value {
    let may_see = |customer| visible.iter().any(|number| id(*number) == customer);
    let shown = prepared.show_customers(may_see, page, Coding::Identity);
    match shown.unwrap().unwrap() {
        Shown::Whole => {
            let ready = prepared.ready(crate::render::Form::Native, Coding::Identity);
            serde_json::from_slice(ready.unwrap().1.body()).unwrap()
        }
        Shown::Part(part) => {
            serde_json::from_slice(part.ready(Coding::Identity).unwrap().body()).unwrap()
        }
    }
}

fn numbers(body: &Value) -> Vec<u64> {
    let items = body["items"].as_array().unwrap();
    items
        .iter()
        .map(|item| item["number"].as_u64().unwrap())
        .collect()
}

/// Everything that a caller is shown, page by page.
fn walk(prepared: &Prepared, visible: &[usize], size: u32) -> Vec<Vec<u64>> {
    let mut pages = Vec::new();
    let mut token: Option<String> = None;
    loop {
        let body = shown(prepared, visible, Some(&page(size, token.as_deref())));
        assert_eq!(body["totalCount"], visible.len());
        pages.push(numbers(&body));
        let next = &body["links"]["next"];
        assert_eq!(next["headers"][0]["value"], body["continuationToken"]);
        match body["continuationToken"].as_str() {
            Some(next) => token = Some(next.to_owned()),
            None => return pages,
        }
    }
}

#[test]
fn the_whole_is_a_collection_of_what_was_sent() {
    let prepared = list(&[2, 0, 1]);

    let body = shown(&prepared, &[0, 1, 2], None);

    assert_eq!(numbers(&body), [0, 1, 2]);
    assert_eq!(body["totalCount"], 3);
    let this =
        serde_json::json!({ "self": { "uri": "/customers", "method": "GET", "headers": [] } });
    assert_eq!(body["links"], this);
    assert_eq!(body["attributes"]["objectType"], "Collection");
    assert!(numbers(&shown(&list(&[]), &[], None)).is_empty());
}

#[test]
fn pages_bring_each_visible_customer_once() {
    let prepared = list(&[0, 1, 2, 3, 4, 5, 6]);

    assert_eq!(
        walk(&prepared, &[0, 1, 2, 3, 4, 5, 6], 3),
        [&[0, 1, 2][..], &[3, 4, 5], &[6]]
    );
    assert_eq!(walk(&prepared, &[1, 4, 6], 2), [&[1, 4][..], &[6]]);
    assert_eq!(walk(&prepared, &[1, 4], 2), [&[1, 4][..]]);
    assert_eq!(walk(&prepared, &[5], 500), [&[5][..]]);
    assert_eq!(walk(&prepared, &[], 1), [&[][..] as &[u64]]);
}

#[test]
fn a_page_is_no_larger_than_partner_centers_own() {
    let prepared = long_list(1_200);

    let first = show(&prepared, 1_200, Some(&page(40_000, None)));

    let first: Value = serde_json::from_slice(first.identity.body()).unwrap();
    assert_eq!(first["totalCount"], 1_200);
    assert_eq!(first["items"].as_array().unwrap().len(), 500);
    assert_eq!(first["links"]["self"]["uri"], "/customers?size=500");
    assert_eq!(
        first["links"]["next"]["uri"],
        "/customers?size=500&seekOperation=Next"
    );
}

#[test]
fn nearly_all_of_a_list_is_cut_out_once_however_many_ask() {
    const ASKING: usize = 8;

    let prepared = long_list(5_000);
    let together = Barrier::new(ASKING);

    let cuts: Vec<_> = thread::scope(|scope| {
        let ask = || {
            together.wait();
            show(&prepared, 4_999, None)
        };
        let asking: Vec<_> = (0..ASKING).map(|_| scope.spawn(ask)).collect();
        asking.into_iter().map(|it| it.join().unwrap()).collect()
    });
    let later = show(&prepared, 4_999, None);

    for cut in cuts {
        assert!(Arc::ptr_eq(&cut, &later));
    }
}

#[test]
fn a_token_names_only_a_customer_that_was_shown_and_gives_no_right() {
    let prepared = list(&[0, 1, 2, 3, 4, 5, 6]);
    let body = shown(&prepared, &[1, 4, 6], Some(&page(1, None)));
    let token = body["continuationToken"].as_str().unwrap();

    let own = shown(&prepared, &[1, 4, 6], Some(&page(1, Some(token))));
    let of_another = shown(&prepared, &[0, 2, 3], Some(&page(9, Some(token))));

    let parsed = Continuation::parse(token.as_bytes()).unwrap();
    assert_eq!(parsed.after.id(), id(1));
    assert_eq!(numbers(&own), [4]);
    assert_eq!(numbers(&of_another), [2, 3]);
    assert_eq!(of_another["totalCount"], 3);
}

#[test]
fn nobody_is_skipped_where_the_list_changes_between_two_pages() {
    let before = list(&[1, 2, 4, 5]);
    let body = shown(&before, &[1, 2, 4, 5], Some(&page(2, None)));
    let token = body["continuationToken"].as_str().unwrap();

    // Customer 2, which the token names, has gone, as has 1; 0, 3 and 6 have come.
    let after = list(&[0, 3, 4, 5, 6]);
    let next = shown(&after, &[0, 3, 4, 5, 6], Some(&page(9, Some(token))));

    assert_eq!(numbers(&next), [3, 4, 5, 6]);
}

#[test]
fn a_page_says_where_it_begins_and_where_it_goes_on() {
    let prepared = list(&[0, 1, 2]);
    let first = shown(&prepared, &[0, 1, 2], Some(&page(1, None)));
    let token = first["continuationToken"].as_str().unwrap();

    let second = shown(&prepared, &[0, 1, 2], Some(&page(1, Some(token))));

    assert_eq!(first["links"]["self"]["uri"], "/customers?size=1");
    let next = &first["links"]["next"];
    assert_eq!(next["uri"], "/customers?size=1&seekOperation=Next");
    assert_eq!(next["headers"][0]["key"], "MS-ContinuationToken");
    assert_eq!(second["links"]["self"], *next);
}

#[test]
fn those_who_are_shown_the_same_share_it_and_no_others_do() {
    let prepared = list(&[0, 1, 2, 3]);
    let part = |visible: &[usize], page: Option<&Page>| {
        let may_see = |customer| visible.iter().any(|number| id(*number) == customer);
        match prepared.show_customers(may_see, page, Coding::Gzip) {
            Ok(Some(Shown::Part(part))) => part,
            other => panic!("{other:?}"),
        }
    };
    let (all, one) = (page(4, None), page(1, None));

    let mine = part(&[0, 1], None);

    assert!(Arc::ptr_eq(&mine, &part(&[0, 1], None)));
    for other in [
        part(&[0, 2], None),
        part(&[0], None),
        part(&[0, 1, 2, 3], Some(&all)),
        part(&[0, 1], Some(&one)),
    ] {
        let etag = |part: &Document| part.ready(Coding::Gzip).unwrap().etag();
        assert_ne!(etag(&mine), etag(&other));
    }
}
