use std::collections::HashSet;

use sha2::{Digest, Sha256};

use super::*;

const NEWEST: Date = date(2026, 11, 17);

fn new_fleet() -> CustomerFleet {
    CustomerFleet::new(1, 200, date(2026, 11, 20))
}

fn all_counts(customer: &FleetCustomer, requested: RequestedDate) -> Vec<(u64, u64)> {
    customer
        .rows(requested, NEWEST)
        .map(|row| (row.active, row.qualified))
        .collect()
}

#[test]
fn the_documented_body_is_the_reference_example_with_a_byte_order_mark() {
    let body = documented_body();

    let (mark, example) = body.split_at(3);
    assert_eq!(mark, BYTE_ORDER_MARK);
    assert_eq!(example.len(), 2_666);
    let digest: String = Sha256::digest(example)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(
        digest,
        "331674376ccd2386b7846e81808c9b028d748303707be4aae9be7189060fd7a0"
    );
}

#[test]
fn the_documented_rows_are_those_of_the_example() {
    let fleet = new_fleet();
    let example: serde_json::Value = serde_json::from_slice(DOCUMENTED_USAGE).unwrap();

    let rows: Vec<_> = fleet
        .customer(DOCUMENTED_CUSTOMER)
        .unwrap()
        .rows(RequestedDate::Newest, NEWEST)
        .collect();

    let items = example["items"].as_array().unwrap();
    assert_eq!(rows.len(), items.len());
    for (row, item) in rows.iter().zip(items) {
        assert_eq!(row.customer_name, item["customerName"]);
        assert_eq!(row.product_name, item["productName"]);
        assert_eq!(row.workload_name, item["workloadName"]);
        assert_eq!(row.service_name, item["serviceName"]);
        assert_eq!(row.channel, item["channel"]);
        assert_eq!(row.active, item["licensesActive"]);
        assert_eq!(row.qualified, item["licensesQualified"]);
        let instant = format!("{}+00:00", row.processed);
        assert_eq!(instant, item["processedDateTime"].as_str().unwrap());
    }
}

#[test]
fn the_same_seed_is_the_same_fleet_and_another_seed_is_another() {
    let ids =
        |fleet: &CustomerFleet| -> Vec<Uuid> { fleet.customers().iter().map(|c| c.id).collect() };

    let (one, same, other) = (
        new_fleet(),
        new_fleet(),
        CustomerFleet::new(2, 200, date(2026, 11, 20)),
    );

    assert_eq!(ids(&one), ids(&same));
    assert_eq!(one.customers()[7].id, customer_id(1, 6));
    assert_ne!(customer_id(1, 6), other.customers()[7].id);
    let distinct: HashSet<_> = ids(&one).into_iter().collect();
    assert_eq!(distinct.len(), 201);
}

#[test]
fn history_reaches_back_four_hundred_days_and_no_further() {
    let fleet = new_fleet();
    let customer = fleet.customer(customer_id(1, 0)).unwrap();
    let has_rows = |day| {
        customer
            .rows(RequestedDate::Date(day), NEWEST)
            .next()
            .is_some()
    };

    assert!(has_rows(NEWEST));
    assert!(has_rows(NEWEST.saturating_sub(399.days())));
    assert!(!has_rows(NEWEST.saturating_sub(400.days())));
    assert!(!has_rows(NEWEST.saturating_add(1.day())));
}

#[test]
fn data_of_a_date_does_not_change_when_a_newer_one_is_processed() {
    let fleet = new_fleet();
    let customer = fleet.customer(customer_id(1, 0)).unwrap();
    let newest = all_counts(customer, RequestedDate::Newest);

    let later = customer
        .rows(
            RequestedDate::Date(NEWEST),
            NEWEST.saturating_add(30.days()),
        )
        .map(|row| (row.active, row.qualified))
        .collect::<Vec<_>>();

    assert_eq!(newest, later);
    let earlier = RequestedDate::Date(NEWEST.saturating_sub(40.days()));
    assert_ne!(newest, all_counts(customer, earlier));
}

/// The days of the last year on which a customer has rows, and how many.
fn history(customer: &FleetCustomer) -> Vec<(Date, usize)> {
    let days = NEWEST.saturating_sub(364.days()).series(1.day()).take(365);
    let counts = days.map(|day| {
        let requested = RequestedDate::Date(day);
        let count = customer.rows(requested, NEWEST).count();
        assert_eq!(customer.row_count(requested, NEWEST), count);
        (day, count)
    });
    counts.filter(|(_, count)| *count > 0).collect()
}

#[test]
fn history_has_gaps() {
    let fleet = new_fleet();
    let history = |index: usize| history(fleet.customer(customer_id(1, index)).unwrap());

    let (whole, joined, added, weekdays) = (history(0), history(7), history(11), history(16));

    let count = |days: &[(Date, usize)], at: usize| days[at].1;
    assert_eq!(whole.len(), 365);
    assert!((15..265).contains(&joined.len()), "{} days", joined.len());
    assert_eq!(added.len(), 365);
    assert!(count(&added, 0) < count(&added, 364));
    assert!(weekdays.iter().all(|(day, _)| !is_weekend(*day)));
    assert!((260..262).contains(&weekdays.len()));
}
