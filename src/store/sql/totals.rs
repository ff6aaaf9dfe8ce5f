//! Totals of the fleet by date: stored ones, and those computed from rows.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
};

use ahash::AHashMap;

use super::{
    connection::{SqlConnection, values},
    dictionary::{Dictionaries, ProductTexts},
    error::SqlResult,
    history::{days, seats},
    read::Queries,
};
use crate::{
    domain::CustomerId,
    store::{
        CustomerTotals, FleetDateTotals, FleetHistoryQuery, ProductFilter, RecentTotalsQuery,
        customer_set::CustomerSet,
        sql,
        totals::{CustomerSeats, DayTotals, ProductNames, StoredSums, StoredTotals},
    },
};

/// The products that count. Those whose ids differ in letter case only are one product, and have one
/// number here.
type CountedProducts = AHashMap<i64, i64>;

/// The totals of a range, with the customers of each day.
#[derive(Default)]
struct RangeTotals {
    totals: HashMap<i64, (StoredSums, CustomerSet)>,
    /// The customers that have any row of a day, counted or not.
    present: HashMap<i64, CustomerSet>,
}

/// Customers of whose dates, or a few dates' rows, an engine may ask at once.
const DAYS_AHEAD: usize = 100;

/// Customers whose rows over a long time an engine may ask for at once.
const HISTORIES_AHEAD: usize = 4;

// === impl Queries ===

impl Queries<'_> {
    pub(in crate::store) fn fleet_history(
        &mut self,
        query: &FleetHistoryQuery,
        preferred: i64,
    ) -> SqlResult<Vec<FleetDateTotals>> {
        let range = days(query.range);
        let counted = counted_products(self.connection, self.dictionaries, &query.products)?;
        // Stored totals are of all customers: never for those who may not read them all.
        let Some(wanted) = &query.customers else {
            let stored = self.range_totals(range, &counted, preferred)?;
            let totals = match query.constant_cohort {
                false => stored.of_all(),
                true => self.totals_of_cohort(stored, range, &counted, preferred)?,
            };
            return Ok(totals.into_dates());
        };
        let mut customers = HashSet::with_capacity(wanted.len());
        for customer in wanted {
            let known = &mut self.dictionaries.customers;
            customers.extend(known.find(self.connection, customer)?);
        }
        let mut customers: Vec<i64> = customers.into_iter().collect();
        if query.constant_cohort {
            customers = constant_cohort(self.connection, &customers, range)?;
        }
        let totals = self.scan(&customers, range, &counted, preferred)?;
        Ok(totals.into_dates())
    }

    pub(in crate::store) fn recent_totals(
        &mut self,
        query: &RecentTotalsQuery,
        preferred: i64,
    ) -> SqlResult<Vec<CustomerTotals>> {
        let counted = counted_products(self.connection, self.dictionaries, &query.products)?;
        let until = query.until.days_since_epoch();
        let dates = i64::try_from(query.dates.get()).unwrap_or(i64::MAX);
        let connection = self.connection;
        let mut customers = Vec::with_capacity(query.customers.len());
        for customer in &query.customers {
            let known = &mut self.dictionaries.customers;
            if let Some(number) = known.find(connection, customer)? {
                customers.push((*customer, number));
            }
        }
        let mut ranges = Vec::with_capacity(customers.len());
        let key = |(_, number): &(CustomerId, i64)| [*number, until, dates];
        let first_days = sql::FIRST_RECENT_DAY;
        for (customer, number) in connection.reading_ahead(&customers, DAYS_AHEAD, first_days, key)
        {
            let from = connection.query_value(first_days, values![*number, until, dates])?;
            if let Some(from) = from {
                ranges.push((*customer, *number, from));
            }
        }
        let mut recent = Vec::with_capacity(ranges.len());
        let key = |(_, number, from): &(CustomerId, i64, i64)| [*number, *from, until, preferred];
        for (customer, number, from) in
            connection.reading_ahead(&ranges, DAYS_AHEAD, sql::HISTORY, key)
        {
            let totals = self.scan(&[*number], (*from, until), &counted, preferred)?;
            recent.push(CustomerTotals {
                customer: *customer,
                totals: totals.into_dates(),
            });
        }
        Ok(recent)
    }

    /// Sums the rows of these customers.
    fn scan(
        &self,
        customers: &[i64],
        (from, to): (i64, i64),
        counted: &CountedProducts,
        preferred: i64,
    ) -> SqlResult<StoredTotals> {
        let mut totals = StoredTotals::default();
        let key = |customer: &i64| [*customer, from, to, preferred];
        let connection = self.connection;
        for customer in connection.reading_ahead(customers, HISTORIES_AHEAD, sql::HISTORY, key) {
            let (mut day, mut products) = (i64::MIN, CustomerSeats::default());
            let values = values![*customer, from, to, preferred];
            self.connection.for_each(sql::HISTORY, values, |row| {
                let of_day: i64 = row.get(0)?;
                if of_day != day {
                    totals.add_customer(day, &mut products);
                    day = of_day;
                }
                if let Some(product) = counted.get(&row.get(1)?) {
                    products.add_row(*product, seats(row.get(4)?)?, seats(row.get(3)?)?);
                }
                Ok(())
            })?;
            totals.add_customer(day, &mut products);
        }
        Ok(totals)
    }

    /// Returns the totals of all customers: those that are stored, and those of outdated days computed
    /// again.
    fn range_totals(
        &mut self,
        range: (i64, i64),
        counted: &CountedProducts,
        preferred: i64,
    ) -> SqlResult<RangeTotals> {
        let groups: HashSet<i64> = counted.values().copied().collect();
        let days = values![range.0, range.1];
        let outdated = self
            .connection
            .query_all(sql::OUTDATED_TOTALS, days, |row| row.get(0))?;
        let outdated: HashSet<i64> = outdated.into_iter().collect();
        let mut totals = RangeTotals::default();
        self.connection.for_each(sql::PRODUCT_TOTALS, days, |row| {
            let day: i64 = row.get(0)?;
            if outdated.contains(&day) {
                return Ok(());
            }
            let licenses = StoredSums {
                qualified: seats(row.get(2)?)?,
                active: seats(row.get(3)?)?,
                unused: seats(row.get(4)?)?,
            };
            let is_counted = groups.contains(&row.get(1)?);
            let customers: Cow<'_, [u8]> = row.get(5)?;
            totals.add(day, is_counted, licenses, &customers);
            Ok(())
        })?;
        for day in outdated {
            let (connection, dictionaries) = (self.connection, &mut *self.dictionaries);
            for (product, total) in day_totals(connection, dictionaries, day, preferred)?.iter() {
                let is_counted = groups.contains(&product);
                totals.add(day, is_counted, total.licenses, total.customers.as_bytes());
            }
        }
        Ok(totals)
    }

    /// Returns the totals of the customers that have every day.
    fn totals_of_cohort(
        &self,
        stored: RangeTotals,
        range: (i64, i64),
        counted: &CountedProducts,
        preferred: i64,
    ) -> SqlResult<StoredTotals> {
        let mut days = stored.present.values();
        let Some(mut cohort) = days.next().cloned() else {
            return Ok(StoredTotals::default());
        };
        let mut others = cohort.clone();
        for present in days {
            cohort.retain_all(present);
            others.add_all(present.as_bytes());
        }
        others.remove_all(&cohort);
        // Fewer rows are read by taking out those of the others, where they are fewer.
        if others.len() < cohort.len() {
            let mut totals = stored.of_all();
            totals.subtract(&self.scan(
                &others.iter().collect::<Vec<_>>(),
                range,
                counted,
                preferred,
            )?);
            Ok(totals)
        } else {
            self.scan(
                &cohort.iter().collect::<Vec<_>>(),
                range,
                counted,
                preferred,
            )
        }
    }
}

// === impl RangeTotals ===

impl RangeTotals {
    fn add(&mut self, day: i64, is_counted: bool, licenses: StoredSums, customers: &[u8]) {
        self.present.entry(day).or_default().add_all(customers);
        if is_counted {
            let (sums, all_customers) = self.totals.entry(day).or_default();
            sums.add(licenses);
            all_customers.add_all(customers);
        }
    }

    fn of_all(&self) -> StoredTotals {
        let mut totals = StoredTotals::default();
        for (day, (licenses, customers)) in &self.totals {
            totals.add(*day, *licenses, customers.len());
        }
        totals
    }
}

// === impl ProductTexts ===

impl ProductTexts {
    /// Returns whether a lower-case text is its name or id.
    pub(in crate::store) fn is_called(&self, wanted: &str) -> bool {
        let texts = [Some(&*self.product_name), self.product_id.as_deref()];
        let mut texts = texts.into_iter().flatten();
        texts.any(|text| text.to_lowercase() == wanted)
    }

    fn names(&self) -> ProductNames<'_> {
        ProductNames {
            product_name: &self.product_name,
            product_id: self.product_id.as_deref(),
            service_name: &self.service_name,
            service_code: self.service_code.as_deref(),
            channel: self.channel.as_deref(),
        }
    }

    fn folded(&self) -> Self {
        let id = self.product_id.as_deref();
        Self {
            product_id: id.map(|id| id.to_ascii_lowercase().into()),
            ..self.clone()
        }
    }
}

/// Computes the stored totals of one outdated day again. Returns true if no other is outdated.
pub(in crate::store) fn compute_outdated(
    connection: &dyn SqlConnection,
    dictionaries: &mut Dictionaries,
) -> SqlResult<bool> {
    let outdated: Option<i64> =
        connection.query_first(sql::LAST_OUTDATED_TOTAL, values![], |row| row.get(0))?;
    let Some(day) = outdated else {
        return Ok(true);
    };
    let preferred = connection.query_value(sql::PREFERRED_SOURCE, values![])?;
    let totals = day_totals(connection, dictionaries, day, preferred)?;
    connection.execute(sql::DELETE_TOTALS, values![day])?;
    for (product, total) in totals.iter() {
        let licenses = total.licenses;
        connection.execute(
            sql::ADD_TOTAL,
            values![
                day,
                product,
                stored(licenses.qualified),
                stored(licenses.active),
                stored(licenses.unused),
                total.customers.as_bytes(),
            ],
        )?;
    }
    connection.execute(sql::TOTAL_IS_CURRENT, values![day])?;
    Ok(false)
}

/// Sums the rows of all customers of a day.
fn day_totals(
    connection: &dyn SqlConnection,
    dictionaries: &mut Dictionaries,
    day: i64,
    preferred: i64,
) -> SqlResult<DayTotals> {
    let products = counted_products(connection, dictionaries, &ProductFilter::default())?;
    let mut totals = DayTotals::default();
    let (mut customer, mut seats_of_customer) = (0, CustomerSeats::default());
    connection.for_each(sql::FACTS_OF_DAY, values![day, preferred], |row| {
        let of_customer: i64 = row.get(0)?;
        if of_customer != customer {
            totals.add_customer(customer, &mut seats_of_customer);
            customer = of_customer;
        }
        if let Some(product) = products.get(&row.get(1)?) {
            seats_of_customer.add_row(*product, seats(row.get(3)?)?, seats(row.get(2)?)?);
        }
        Ok(())
    })?;
    totals.add_customer(customer, &mut seats_of_customer);
    Ok(totals)
}

fn counted_products(
    connection: &dyn SqlConnection,
    dictionaries: &mut Dictionaries,
    filter: &ProductFilter,
) -> SqlResult<CountedProducts> {
    let filter = filter.to_lowercase();
    let products = dictionaries.products.all(connection)?;
    let mut groups: AHashMap<ProductTexts, i64> = AHashMap::new();
    for (texts, number) in products {
        let first = groups.entry(texts.folded()).or_insert(*number);
        *first = (*first).min(*number);
    }
    let counted = products
        .iter()
        .filter(|(texts, _)| filter.counts(texts.names()));
    let counted = counted.filter_map(|(texts, number)| {
        let group = groups.get(&texts.folded())?;
        Some((*number, *group))
    });
    Ok(counted.collect())
}

/// Returns those customers that have every day of the range that any of them has.
fn constant_cohort(
    connection: &dyn SqlConnection,
    customers: &[i64],
    (from, to): (i64, i64),
) -> SqlResult<Vec<i64>> {
    let mut days = HashSet::new();
    let mut counts = Vec::with_capacity(customers.len());
    let key = |customer: &i64| [*customer, from, to];
    for customer in connection.reading_ahead(customers, DAYS_AHEAD, sql::DAYS_OF_CUSTOMER, key) {
        let mut count = 0;
        let values = values![*customer, from, to];
        connection.for_each(sql::DAYS_OF_CUSTOMER, values, |row| {
            days.insert(row.get::<i64>(0)?);
            count += 1;
            Ok(())
        })?;
        counts.push((*customer, count));
    }
    let complete = counts.into_iter().filter(|(_, count)| *count == days.len());
    Ok(complete.map(|(customer, _)| customer).collect())
}

/// Returns a sum as a column can have it.
fn stored(sum: u64) -> i64 {
    i64::try_from(sum).unwrap_or(i64::MAX)
}
