//! Rows of a copy that are inserted together.

use std::sync::LazyLock;

use crate::store::{
    schema::StoredFact,
    sql::{
        self, Statement,
        connection::{SqlConnection, SqlValue},
        error::SqlResult,
        merge::SnapshotHistory,
    },
};

/// Rows that are inserted together.
pub(super) struct RowInserter {
    one: Statement,
    many: Statement,
    columns: usize,
    waiting: Vec<SqlValue<'static>>,
}

/// A statement sends so many rows.
const ROWS_AT_ONCE: usize = 50;

const SNAPSHOT_COLUMNS: usize = 9;

const FACT_COLUMNS: usize = 9;

const SUPERSEDED_FACT_COLUMNS: usize = 10;

static COPY_SNAPSHOTS: LazyLock<Statement> =
    LazyLock::new(|| of_many_rows(sql::COPY_SNAPSHOT, SNAPSHOT_COLUMNS));

static ADD_FACTS: LazyLock<Statement> = LazyLock::new(|| of_many_rows(sql::ADD_FACT, FACT_COLUMNS));

static COPY_SUPERSEDED_FACTS: LazyLock<Statement> =
    LazyLock::new(|| of_many_rows(sql::COPY_SUPERSEDED_FACT, SUPERSEDED_FACT_COLUMNS));

// === impl RowInserter ===

impl RowInserter {
    pub(super) fn of_snapshots() -> Self {
        Self::new(sql::COPY_SNAPSHOT, *COPY_SNAPSHOTS, SNAPSHOT_COLUMNS)
    }

    pub(super) fn of_facts() -> Self {
        Self::new(sql::ADD_FACT, *ADD_FACTS, FACT_COLUMNS)
    }

    pub(super) fn of_superseded_facts() -> Self {
        let many = *COPY_SUPERSEDED_FACTS;
        Self::new(sql::COPY_SUPERSEDED_FACT, many, SUPERSEDED_FACT_COLUMNS)
    }

    fn new(one: Statement, many: Statement, columns: usize) -> Self {
        Self {
            one,
            many,
            columns,
            waiting: Vec::with_capacity(columns * ROWS_AT_ONCE),
        }
    }

    pub(super) fn add(
        &mut self,
        connection: &dyn SqlConnection,
        row: impl IntoIterator<Item = SqlValue<'static>>,
    ) -> SqlResult<()> {
        self.waiting.extend(row);
        if self.waiting.len() >= self.columns * ROWS_AT_ONCE {
            connection.execute(self.many, &self.waiting)?;
            self.waiting.clear();
        }
        Ok(())
    }

    pub(super) fn finish(self, connection: &dyn SqlConnection) -> SqlResult<()> {
        let mut rows = self.waiting.chunks(self.columns);
        rows.try_for_each(|row| connection.execute(self.one, row))
    }
}

/// Returns an INSERT of [`ROWS_AT_ONCE`] rows in place of one.
fn of_many_rows(one: Statement, columns: usize) -> Statement {
    let spelled = |text: &'static str, mark: char| -> &'static str {
        let (insert, _) = text.split_once(" VALUES ").unwrap_or((text, ""));
        let row = |number: usize| {
            let first = number * columns + 1;
            let parameters = (first..first + columns).map(|parameter| format!("{mark}{parameter}"));
            format!("({})", parameters.collect::<Vec<_>>().join(", "))
        };
        let rows: Vec<_> = (0..ROWS_AT_ONCE).map(row).collect();
        // Once for each statement.
        format!("{insert} VALUES {}", rows.join(", ")).leak()
    };
    Statement {
        dollars: spelled(one.dollars, '$'),
        question_marks: spelled(one.question_marks, '?'),
    }
}

pub(super) fn snapshot_values(
    customer: i64,
    history: &SnapshotHistory,
) -> impl Iterator<Item = SqlValue<'static>> {
    let current = history.revisions.last();
    let values = current.map(|current| -> [SqlValue<'static>; SNAPSHOT_COLUMNS] {
        [
            customer.into(),
            history.day.into(),
            history.source.into(),
            last_revision(history).into(),
            current.state.into(),
            current.customer_name.into(),
            current.fetched_at.into(),
            current.confirmed_at.into(),
            history.generation.into(),
        ]
    });
    values.into_iter().flatten()
}

pub(super) fn fact_values(
    customer: i64,
    history: &SnapshotHistory,
    fact: &StoredFact,
) -> [SqlValue<'static>; FACT_COLUMNS] {
    [
        customer.into(),
        history.day.into(),
        history.source.into(),
        fact.product.into(),
        fact.workload.into(),
        fact.licenses_active.into(),
        fact.licenses_qualified.into(),
        fact.reported_usage_percent.into(),
        fact.processed_offset.into(),
    ]
}

/// Returns the number of the current revision.
pub(super) fn last_revision(history: &SnapshotHistory) -> i64 {
    i64::try_from(history.revisions.len()).unwrap_or(i64::MAX)
}
