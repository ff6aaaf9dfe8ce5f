//! History of one customer, and the deletion of old dates.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroUsize,
    ops::ControlFlow,
    sync::Arc,
};

use super::{
    connection::{SqlConnection, values},
    dictionary::WorkloadTexts,
    error::{SqlError, SqlResult},
    read::{Queries, timestamp, unreadable},
};
use crate::{
    domain::{CustomerId, ProcessedDate},
    store::{
        DateRange, HistoryPosition, HistoryQuery, HistoryRow, OldDates, StoredDate,
        schema::{ALL_CUSTOMERS, date_of_day},
        sql,
    },
};

/// Rows of a history that are read at once.
const ROWS_AT_ONCE: i64 = 1000;

/// Customers of whose old snapshots an engine may ask at once. Each has as many as are deleted together, or
/// one.
const OLD_CUSTOMERS_AHEAD: usize = 8;

/// Old snapshots of a customer and source.
struct OldSnapshots {
    first_day: i64,
    last_day: i64,
    /// True if any was superseded.
    are_corrected: bool,
}

// === impl Queries ===

impl Queries<'_> {
    pub(in crate::store) fn dates(
        &mut self,
        customer: CustomerId,
        range: DateRange,
        preferred: i64,
    ) -> SqlResult<Vec<StoredDate>> {
        let Some(customer) = self.customer_number(customer)? else {
            return Ok(Vec::new());
        };
        let (from, to) = days(range);
        let values = values![customer, from, to, preferred];
        self.connection.query_all(sql::DATES, values, |row| {
            let (confirmed_at, by_fleet): (i64, Option<i64>) = (row.get(2)?, row.get(3)?);
            let revision = u32::try_from(row.get::<i64>(4)?).map_err(unreadable)?;
            Ok(StoredDate {
                date: date(row.get(0)?)?,
                fetched_at: timestamp(row.get(1)?)?,
                confirmed_at: timestamp(by_fleet.map_or(confirmed_at, |at| at.max(confirmed_at)))?,
                corrections: revision.saturating_sub(1),
            })
        })
    }

    pub(in crate::store) fn history(
        &mut self,
        query: &HistoryQuery,
        preferred: i64,
    ) -> SqlResult<Vec<HistoryRow>> {
        let Some(customer) = self.customer_number(query.customer)? else {
            return Ok(Vec::new());
        };
        let (from, to) = days(query.range);
        // Numbers begin at 1.
        let mut last = (from, (0, 0));
        if let Some(after) = &query.after {
            last = last.max((after.date.days_since_epoch(), after.row));
        }
        // Of a filter's rows, the first may be far away.
        let at_once = match query.products.is_empty() && query.workload.is_none() {
            true => i64::try_from(query.limit.get()).unwrap_or(ROWS_AT_ONCE),
            false => ROWS_AT_ONCE,
        };
        let at_once = at_once.min(ROWS_AT_ONCE);
        let wanted_products = query.products.iter().map(|name| name.to_lowercase());
        let wanted_products: Vec<_> = wanted_products.collect();
        let wanted_workload = query.workload.as_deref().map(str::to_lowercase);
        let (connection, dictionaries) = (self.connection, &mut *self.dictionaries);
        let mut history = Vec::new();
        let mut is_last = false;
        while !is_last && history.len() < query.limit.get() {
            let (from, (after_product, after_workload)) = last;
            let values = values![
                customer,
                from,
                to,
                preferred,
                after_product,
                after_workload,
                at_once
            ];
            let mut count = 0;
            connection.query(sql::HISTORY_PAGE, values, &mut |row| {
                count += 1;
                let day: i64 = row.get(0)?;
                let row_number: (i64, i64) = (row.get(1)?, row.get(2)?);
                last = (day, row_number);
                let product = dictionaries.products.entry(connection, row_number.0)?;
                let workload = dictionaries.workloads.entry(connection, row_number.1)?;
                let mut wanted = wanted_products.iter();
                let is_product =
                    wanted_products.is_empty() || wanted.any(|name| product.is_called(name));
                if !is_product
                    || wanted_workload
                        .as_ref()
                        .is_some_and(|wanted| !workload.is_called(wanted))
                {
                    return Ok(ControlFlow::Continue(()));
                }
                history.push(HistoryRow {
                    position: HistoryPosition {
                        date: date(day)?,
                        row: row_number,
                    },
                    product_name: Arc::clone(&product.product_name),
                    product_id: product.product_id.clone(),
                    service_name: Arc::clone(&product.service_name),
                    channel: product.channel.clone(),
                    workload_name: Arc::clone(&workload.workload_name),
                    licenses_active: seats(row.get(3)?)?,
                    licenses_qualified: seats(row.get(4)?)?,
                });
                Ok(match history.len() == query.limit.get() {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                })
            })?;
            is_last = count < at_once;
        }
        Ok(history)
    }

    pub(in crate::store) fn asked_dates(
        &mut self,
        customer: Option<CustomerId>,
        range: DateRange,
    ) -> SqlResult<Vec<ProcessedDate>> {
        let customer = match customer {
            // One without a number was asked for together with all others only.
            Some(customer) => self.customer_number(customer)?.unwrap_or(ALL_CUSTOMERS),
            None => ALL_CUSTOMERS,
        };
        let (from, to) = days(range);
        let values = values![customer, from, to];
        self.connection
            .query_all(sql::ASKED_DAYS, values, |row| date(row.get(0)?))
    }

    fn customer_number(&mut self, customer: CustomerId) -> SqlResult<Option<i64>> {
        let customers = &mut self.dictionaries.customers;
        customers.find(self.connection, &customer)
    }
}

// === impl WorkloadTexts ===

impl WorkloadTexts {
    /// Returns whether a lower-case text is its name or code.
    fn is_called(&self, wanted: &str) -> bool {
        let code = self.workload_code.as_deref();
        [Some(&*self.workload_name), code]
            .into_iter()
            .flatten()
            .any(|text| text.to_lowercase() == wanted)
    }
}

// === impl OldSnapshots ===

impl OldSnapshots {
    fn delete(&self, connection: &dyn SqlConnection, customer: i64, source: i64) -> SqlResult<()> {
        let values = values![customer, self.first_day, self.last_day, source];
        let run = |statement| connection.execute(statement, values);
        run(sql::DELETE_OLD_FACTS)?;
        run(sql::DELETE_OLD_BODIES)?;
        if self.are_corrected {
            run(sql::DELETE_OLD_SUPERSEDED_FACTS)?;
            run(sql::DELETE_OLD_SUPERSEDED_SNAPSHOTS)?;
        }
        run(sql::DELETE_OLD_NEWEST)?;
        run(sql::DELETE_OLD_SNAPSHOTS)
    }
}

/// Deletes snapshots of old days, in a transaction of the caller.
pub(in crate::store) fn delete_old(
    connection: &dyn SqlConnection,
    old: OldDates,
    limit: NonZeroUsize,
) -> SqlResult<usize> {
    let newest: Option<i64> = connection.query_value(sql::LAST_DAY, values![])?;
    let Some(newest) = newest else {
        return Ok(0);
    };
    let first_kept = newest.saturating_sub(old.days_before_newest);
    let day = old.before.days_since_epoch().min(first_kept);
    let limit = i64::try_from(limit.get()).unwrap_or(i64::MAX);
    let values = values![day, limit];
    let customers: Vec<i64> =
        connection.query_all(sql::CUSTOMERS_BEFORE, values, |row| row.get(0))?;
    let (mut deleted, mut days) = (0, BTreeSet::new());
    let key = |customer: &i64| [*customer, day, limit];
    let snapshots = sql::SNAPSHOTS_BEFORE;
    for customer in connection.reading_ahead(&customers, OLD_CUSTOMERS_AHEAD, snapshots, key) {
        let mut by_source: BTreeMap<i64, OldSnapshots> = BTreeMap::new();
        connection.query(snapshots, values![*customer, day, limit], &mut |row| {
            if deleted == limit {
                return Ok(ControlFlow::Break(()));
            }
            let (day, revision): (i64, i64) = (row.get(0)?, row.get(2)?);
            let of_source = by_source.entry(row.get(1)?).or_insert(OldSnapshots {
                first_day: day,
                last_day: day,
                are_corrected: false,
            });
            of_source.last_day = day;
            of_source.are_corrected |= revision > 1;
            days.insert(day);
            deleted += 1;
            Ok(ControlFlow::Continue(()))
        })?;
        for (source, old) in by_source {
            old.delete(connection, *customer, source)?;
        }
        if deleted == limit {
            break;
        }
    }
    for day in days {
        connection.execute(sql::OUTDATE_TOTAL, values![day])?;
    }
    connection.execute(sql::DELETE_ASKED_DAYS, values![day])?;
    Ok(usize::try_from(deleted).unwrap_or(usize::MAX))
}

pub(in crate::store) fn days(range: DateRange) -> (i64, i64) {
    (range.from.days_since_epoch(), range.to.days_since_epoch())
}

pub(in crate::store) fn date(day: i64) -> SqlResult<ProcessedDate> {
    date_of_day(day).ok_or_else(|| SqlError::Unreadable(format!("{day} is no day")))
}

pub(in crate::store) fn seats(stored: i64) -> SqlResult<u64> {
    u64::try_from(stored).map_err(unreadable)
}
