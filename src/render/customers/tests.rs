use std::{
    num::NonZeroU32,
    sync::{Arc, Barrier},
    thread,
};

use serde_json::Value;

use super::*;
use crate::{
    domain::{CustomerEntry, CustomerId, CustomerList, ListedCustomer, ProcessedDate},
    render::{ContentCoding, Rendered, RenderedDocument},
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

fn numbered_id(number: usize) -> CustomerId {
    CustomerId::parse(&format!("00000000-0000-0000-0000-{number:012}")).unwrap()
}

/// The customers of these numbers.
fn rendered_list(numbers: &[usize]) -> Rendered {
    let listed = numbers.iter().map(|number| ListedCustomer {
        entry: CustomerEntry {
            id: numbered_id(*number),
            name: NAMES[*number].into(),
            domain: None,
        },
        raw: format!(
            "{{\"id\": \"{}\", \"number\": {number}}}",
            numbered_id(*number)
        )
        .into(),
    });
    let list = CustomerList::new(listed.collect());
    let seen_at = ProcessedDate::parse("2026-11-22").unwrap().start();
    Rendered::of_customers(list, seen_at)
}

fn long_list(customers: usize) -> Rendered {
    let listed = (0..customers).map(|number| ListedCustomer {
        entry: CustomerEntry {
            id: numbered_id(number),
            name: format!("Customer {number:06}"),
            domain: None,
        },
        raw: format!(
            "{{\"id\": \"{}\", \"number\": {number}}}",
            numbered_id(number)
        )
        .into(),
    });
    let seen_at = ProcessedDate::parse("2026-11-22").unwrap().start();
    Rendered::of_customers(CustomerList::new(listed.collect()), seen_at)
}

/// The part that a caller is shown who may see so many of the first.
fn show_first(
    rendered: &Rendered,
    visible: usize,
    page: Option<&CustomerPageRequest>,
) -> Arc<RenderedDocument> {
    let may_see = |customer| customer < numbered_id(visible);
    let shown = rendered.visible_customers(may_see, page, ContentCoding::Identity);
    match shown.unwrap().unwrap() {
        VisibleCustomers::Part(part) => part,
        VisibleCustomers::Whole => panic!("expected a part"),
    }
}

fn page(size: u32, token: Option<&str>) -> CustomerPageRequest {
    CustomerPageRequest {
        size: NonZeroU32::new(size),
        filter: None,
        after: token.map(|token| Continuation::parse(token.as_bytes()).unwrap().after),
    }
}

/// Returns the list that a caller gets who may see these customers.
fn shown_json(rendered: &Rendered, visible: &[usize], page: Option<&CustomerPageRequest>) -> Value {
    let may_see = |customer| {
        visible
            .iter()
            .any(|number| numbered_id(*number) == customer)
    };
    let shown = rendered.visible_customers(may_see, page, ContentCoding::Identity);
    match shown.unwrap().unwrap() {
        VisibleCustomers::Whole => {
            let ready = rendered.ready(crate::render::Format::Native, ContentCoding::Identity);
            serde_json::from_slice(ready.unwrap().1.body()).unwrap()
        }
        VisibleCustomers::Part(part) => {
            serde_json::from_slice(part.ready(ContentCoding::Identity).unwrap().body()).unwrap()
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
fn walk(rendered: &Rendered, visible: &[usize], size: u32) -> Vec<Vec<u64>> {
    let mut pages = Vec::new();
    let mut token: Option<String> = None;
    loop {
        let body = shown_json(rendered, visible, Some(&page(size, token.as_deref())));
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
fn the_whole_list_is_a_collection_of_the_sent_customers() {
    let rendered = rendered_list(&[2, 0, 1]);

    let body = shown_json(&rendered, &[0, 1, 2], None);

    assert_eq!(numbers(&body), [0, 1, 2]);
    assert_eq!(body["totalCount"], 3);
    let this =
        serde_json::json!({ "self": { "uri": "/customers", "method": "GET", "headers": [] } });
    assert_eq!(body["links"], this);
    assert_eq!(body["attributes"]["objectType"], "Collection");
    assert!(numbers(&shown_json(&rendered_list(&[]), &[], None)).is_empty());
}

#[test]
fn pages_contain_each_visible_customer_once() {
    let rendered = rendered_list(&[0, 1, 2, 3, 4, 5, 6]);

    assert_eq!(
        walk(&rendered, &[0, 1, 2, 3, 4, 5, 6], 3),
        [&[0, 1, 2][..], &[3, 4, 5], &[6]]
    );
    assert_eq!(walk(&rendered, &[1, 4, 6], 2), [&[1, 4][..], &[6]]);
    assert_eq!(walk(&rendered, &[1, 4], 2), [&[1, 4][..]]);
    assert_eq!(walk(&rendered, &[5], 500), [&[5][..]]);
    assert_eq!(walk(&rendered, &[], 1), [&[][..] as &[u64]]);
}

#[test]
fn a_page_is_no_larger_than_partner_centers_own() {
    let rendered = long_list(1_200);

    let first = show_first(&rendered, 1_200, Some(&page(40_000, None)));

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
fn concurrent_callers_render_a_slice_once() {
    const CALLERS: usize = 8;

    let rendered = long_list(5_000);
    let together = Barrier::new(CALLERS);

    let cuts: Vec<_> = thread::scope(|scope| {
        let ask = || {
            together.wait();
            show_first(&rendered, 4_999, None)
        };
        let asking: Vec<_> = (0..CALLERS).map(|_| scope.spawn(ask)).collect();
        asking.into_iter().map(|it| it.join().unwrap()).collect()
    });
    let later = show_first(&rendered, 4_999, None);

    for cut in cuts {
        assert!(Arc::ptr_eq(&cut, &later));
    }
}

#[test]
fn a_token_names_only_a_visible_customer_and_grants_no_access() {
    let rendered = rendered_list(&[0, 1, 2, 3, 4, 5, 6]);
    let body = shown_json(&rendered, &[1, 4, 6], Some(&page(1, None)));
    let token = body["continuationToken"].as_str().unwrap();

    let own = shown_json(&rendered, &[1, 4, 6], Some(&page(1, Some(token))));
    let of_another = shown_json(&rendered, &[0, 2, 3], Some(&page(9, Some(token))));

    let parsed = Continuation::parse(token.as_bytes()).unwrap();
    assert_eq!(parsed.after.id(), numbered_id(1));
    assert_eq!(numbers(&own), [4]);
    assert_eq!(numbers(&of_another), [2, 3]);
    assert_eq!(of_another["totalCount"], 3);
}

#[test]
fn no_customer_is_skipped_when_the_list_changes_between_pages() {
    let before = rendered_list(&[1, 2, 4, 5]);
    let body = shown_json(&before, &[1, 2, 4, 5], Some(&page(2, None)));
    let token = body["continuationToken"].as_str().unwrap();

    // Customer 2, which the token names, has gone, as has 1; 0, 3 and 6 have come.
    let after = rendered_list(&[0, 3, 4, 5, 6]);
    let next = shown_json(&after, &[0, 3, 4, 5, 6], Some(&page(9, Some(token))));

    assert_eq!(numbers(&next), [3, 4, 5, 6]);
}

#[test]
fn a_page_links_to_itself_and_the_next() {
    let rendered = rendered_list(&[0, 1, 2]);
    let first = shown_json(&rendered, &[0, 1, 2], Some(&page(1, None)));
    let token = first["continuationToken"].as_str().unwrap();

    let second = shown_json(&rendered, &[0, 1, 2], Some(&page(1, Some(token))));

    assert_eq!(first["links"]["self"]["uri"], "/customers?size=1");
    let next = &first["links"]["next"];
    assert_eq!(next["uri"], "/customers?size=1&seekOperation=Next");
    assert_eq!(next["headers"][0]["key"], "MS-ContinuationToken");
    assert_eq!(second["links"]["self"], *next);
}

#[test]
fn only_callers_with_the_same_visible_customers_share_a_slice() {
    let rendered = rendered_list(&[0, 1, 2, 3]);
    let part = |visible: &[usize], page: Option<&CustomerPageRequest>| {
        let may_see = |customer| {
            visible
                .iter()
                .any(|number| numbered_id(*number) == customer)
        };
        match rendered.visible_customers(may_see, page, ContentCoding::Gzip) {
            Ok(Some(VisibleCustomers::Part(part))) => part,
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
        let etag = |part: &RenderedDocument| part.ready(ContentCoding::Gzip).unwrap().etag();
        assert_ne!(etag(&mine), etag(&other));
    }
}
