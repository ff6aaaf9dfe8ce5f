//! A connection that sends statements together, so that a network in between is crossed seldom.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    future::{Future, poll_fn},
    ops::ControlFlow,
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use futures_util::{TryStreamExt, future::maybe_done};
use tokio::{
    runtime::Runtime,
    task::{JoinHandle, yield_now},
    time::{Instant, timeout_at},
};
use tokio_postgres::{Client, Row, types::Type};

use super::{
    coordination::Parameter, error::PostgresError, listener::NOTIFY, server::PostgresServer,
};
use crate::store::{
    Notification,
    native_body::BodyCodec,
    sql::{
        self, Statement,
        apply::Changes,
        connection::{SqlConnection, SqlRow, SqlValue, values},
        dictionary::Dictionaries,
        error::{SqlError, SqlResult},
        read::{Queries, unreadable},
    },
};

/// A connection with the texts that it has seen.
pub(super) struct PostgresSession {
    connection: PostgresConnection,
    dictionaries: Dictionaries,
    bodies: BodyCodec,
    /// The version of the texts that the dictionaries are of; `None` for empty ones.
    texts_version: Option<i64>,
}

/// A connection to the server.
pub(super) struct PostgresConnection {
    runtime: Arc<Runtime>,
    client: Client,
    driver: JoinHandle<()>,
    deadline: Cell<Instant>,
    pipeline: RefCell<Pipeline>,
    /// True if this transaction gave a number to a text.
    adds_texts: Cell<bool>,
    /// What other processes are notified of, once this transaction is committed.
    notification: Cell<Option<Notification>>,
}

/// The statements that wait to be sent, and the results that wait to be asked for.
#[derive(Default)]
struct Pipeline {
    waiting: Vec<Message>,
    /// They are added before the next message that may see them.
    facts: WaitingFacts,
    /// The results of queries that were announced; `None` for those that wait.
    ahead: HashMap<AheadKey, Option<Vec<Row>>>,
}

/// Rows of `fact`, by column, that one statement adds: so the server reads and plans it once for all.
#[derive(Default)]
struct WaitingFacts {
    integers: [Vec<i64>; 8],
    percents: Vec<Option<f64>>,
}

/// A statement and its parameters. The text itself, since equal constants may have several addresses.
type AheadKey = (&'static str, Vec<i64>);

struct Message {
    text: &'static str,
    kind: MessageKind,
}

/// The end of a transaction.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    /// The result comes once the changes are durable.
    Durable,
    /// The result does not wait for it, since nothing was changed.
    Unawaited,
}

enum MessageKind {
    /// Several statements without parameters and results.
    Batch,
    Statement(Vec<SqlValue<'static>>),
    Facts(Box<WaitingFacts>),
    Ahead(AheadKey),
    Notification(Notification),
}

/// Statements that may wait; each takes a kilobyte or two.
const MAX_WAITING: usize = 512;

/// Rows of `fact` that one statement adds.
const MAX_FACTS: usize = 1_000;

/// [`sql::ADD_FACT`] for many rows.
const ADD_FACTS: &str = "INSERT INTO fact (customer, day, source, product, workload, \
    licenses_active, licenses_qualified, processed_offset, reported_usage_percent) \
    SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9)";

/// Those that give a number to a text.
const ADDS_TEXTS: [Statement; 4] = [
    sql::ADD_CUSTOMER,
    sql::ADD_NAME,
    sql::ADD_PRODUCT,
    sql::ADD_WORKLOAD,
];

// === impl PostgresSession ===

impl PostgresSession {
    pub(super) fn connect(server: &PostgresServer, runtime: &Arc<Runtime>) -> SqlResult<Self> {
        let (client, driver) = runtime.block_on(server.connect())?;
        // It runs while the thread waits for a result.
        let driver = runtime.spawn(driver);
        Ok(Self {
            connection: PostgresConnection {
                runtime: Arc::clone(runtime),
                client,
                driver,
                deadline: Cell::new(Instant::now()),
                pipeline: RefCell::default(),
                adds_texts: Cell::new(false),
                notification: Cell::new(None),
            },
            dictionaries: Dictionaries::default(),
            bodies: BodyCodec::new().map_err(unreadable)?,
            texts_version: None,
        })
    }

    /// Returns whether the server has closed the connection since it was last used.
    pub(super) fn is_closed(&self) -> bool {
        let PostgresConnection {
            runtime, client, ..
        } = &self.connection;
        // One turn sees that there is something to read, the next reads it.
        runtime.block_on(async {
            for _ in 0..3 {
                yield_now().await;
            }
        });
        client.is_closed()
    }

    pub(super) fn connection(&self) -> &PostgresConnection {
        &self.connection
    }

    /// Runs a query in a transaction, which sees one state of the data.
    pub(super) fn read<T>(
        &mut self,
        begin: &'static str,
        time_limit: Duration,
        query: impl Fn(&mut Queries<'_>) -> SqlResult<T>,
    ) -> SqlResult<T> {
        let Self {
            connection,
            dictionaries,
            bodies,
            texts_version,
        } = self;
        let connection = &*connection;
        let result = connection.in_transaction(begin, End::Unawaited, time_limit, || {
            // It comes along with the first result.
            connection.read_ahead(sql::TEXTS_VERSION, &[]);
            let result = query(&mut Queries {
                connection,
                dictionaries,
                bodies,
            });
            if let Err(SqlError::Postgres(_)) = result {
                return result;
            }
            let version = shared(connection).query_value(sql::TEXTS_VERSION, values![])?;
            if connection.knows_texts(texts_version, version)? {
                return result;
            }
            *dictionaries = Dictionaries::default();
            query(&mut Queries {
                connection,
                dictionaries,
                bodies,
            })
        });
        if result.is_err() {
            self.forget_texts();
        }
        result
    }

    /// Does work in a transaction, one at a time over all processes.
    pub(super) fn write<T>(
        &mut self,
        begin: &'static str,
        time_limit: Duration,
        work: impl Fn(&mut Changes<'_>) -> SqlResult<T>,
    ) -> SqlResult<T> {
        let Self {
            connection,
            dictionaries,
            bodies,
            texts_version,
        } = self;
        let connection = &*connection;
        connection.adds_texts.set(false);
        let result = connection.in_transaction(begin, End::Durable, time_limit, || {
            let version = shared(connection).query_value(sql::LOCK_STORE, values![])?;
            if !connection.knows_texts(texts_version, version)? {
                *dictionaries = Dictionaries::default();
            }
            let done = work(&mut Changes {
                connection,
                dictionaries,
                bodies,
                last_purge: None,
                has_changed: false,
            })?;
            if connection.adds_texts.get() {
                let version = rand::random();
                connection.execute(sql::ADD_TEXTS_VERSION, values![version])?;
                connection.execute(sql::SET_TEXTS_VERSION, values![version])?;
                *texts_version = Some(version);
            }
            Ok(done)
        });
        if result.is_err() {
            self.forget_texts();
        }
        result
    }

    /// Forgets texts that a failed transaction has seen or added.
    fn forget_texts(&mut self) {
        self.dictionaries = Dictionaries::default();
        self.texts_version = None;
    }
}

// === impl PostgresConnection ===

impl PostgresConnection {
    /// Does work between `begin`, which is sent with the first statement, and COMMIT.
    pub(super) fn in_transaction<T>(
        &self,
        begin: &'static str,
        end: End,
        time_limit: Duration,
        work: impl FnOnce() -> SqlResult<T>,
    ) -> SqlResult<T> {
        self.deadline.set(Instant::now() + time_limit);
        self.notification.set(None);
        self.batch(begin);
        let result = work().and_then(|done| {
            match end {
                End::Durable => {
                    self.batch("COMMIT");
                    // In the transaction, a full queue of notifications would be an error of COMMIT.
                    if let Some(notification) = self.notification.take() {
                        let kind = MessageKind::Notification(notification);
                        self.pipeline.borrow_mut().queue(NOTIFY, kind);
                    }
                    self.flush()?;
                }
                End::Unawaited => self.send_commit(),
            }
            Ok(done)
        });
        *self.pipeline.borrow_mut() = Pipeline::default();
        let is_lost = matches!(&result, Err(SqlError::Postgres(error)) if !error.is_answer());
        if result.is_err() && !is_lost {
            self.batch("ROLLBACK");
            self.flush()?;
        }
        result
    }

    /// Sends COMMIT, whose result nobody needs.
    fn send_commit(&self) {
        self.runtime.block_on(async {
            let mut commit = pin!(self.client.batch_execute("COMMIT"));
            poll_fn(|cx| {
                let _is_done = commit.as_mut().poll(cx).is_ready();
                Poll::Ready(())
            })
            .await;
            // The driver writes it.
            yield_now().await;
        });
    }

    /// Queues statements without parameters and results.
    pub(super) fn batch(&self, text: &'static str) {
        self.pipeline.borrow_mut().queue(text, MessageKind::Batch);
    }

    /// Sends all that waits, and returns the rows of the last statement.
    pub(super) fn flush(&self) -> SqlResult<Vec<Row>> {
        let waiting = std::mem::take(&mut self.pipeline.borrow_mut().waiting);
        let results = run_all(&self.client, &waiting);
        let results = self
            .runtime
            .block_on(async { timeout_at(self.deadline.get(), results).await });
        let results = results
            .map_err(|_elapsed| PostgresError::TimedOut)?
            .map_err(PostgresError::from)?;
        let mut pipeline = self.pipeline.borrow_mut();
        let mut last = Vec::new();
        for (message, rows) in waiting.into_iter().zip(results) {
            match message.kind {
                MessageKind::Ahead(key) => {
                    // Forgotten meanwhile, or not.
                    if let Some(result) = pipeline.ahead.get_mut(&key) {
                        *result = Some(rows);
                    }
                }
                MessageKind::Batch | MessageKind::Statement(_) | MessageKind::Facts(_) => {
                    last = rows;
                }
                MessageKind::Notification(_) => {}
            }
        }
        Ok(last)
    }

    /// Returns whether dictionaries of a version can be used with this one: all their texts still have
    /// these numbers. Lets the version be this one.
    fn knows_texts(&self, known: &mut Option<i64>, version: i64) -> SqlResult<bool> {
        let Some(before) = known.replace(version) else {
            return Ok(true);
        };
        if before == version {
            return Ok(true);
        }
        let found =
            shared(self).query_first(sql::KNOWN_TEXTS_VERSION, values![before], |_| Ok(()))?;
        Ok(found.is_some())
    }

    fn take_ahead(&self, key: &AheadKey) -> SqlResult<Option<Vec<Row>>> {
        let waits = match self.pipeline.borrow().ahead.get(key) {
            None => return Ok(None),
            Some(rows) => rows.is_none(),
        };
        if waits {
            self.flush()?;
        }
        Ok(self.pipeline.borrow_mut().ahead.remove(key).flatten())
    }

    fn flush_if_full(&self) -> SqlResult<()> {
        if self.pipeline.borrow().waiting.len() < MAX_WAITING {
            return Ok(());
        }
        self.flush().map(drop)
    }
}

// === impl Pipeline ===

impl Pipeline {
    fn queue(&mut self, text: &'static str, kind: MessageKind) {
        self.queue_facts();
        self.waiting.push(Message { text, kind });
    }

    fn queue_facts(&mut self) {
        if !self.facts.percents.is_empty() {
            let kind = MessageKind::Facts(Box::new(std::mem::take(&mut self.facts)));
            let text = ADD_FACTS;
            self.waiting.push(Message { text, kind });
        }
    }
}

// === impl WaitingFacts ===

impl WaitingFacts {
    /// Adds the values of [`sql::ADD_FACT`], of which the percentage alone is no integer.
    fn add(&mut self, values: &[SqlValue<'_>]) {
        let (mut columns, mut percent) = (self.integers.iter_mut(), None);
        for value in values {
            match value {
                SqlValue::Integer(value) => columns.next().into_iter().for_each(|column| {
                    column.push(*value);
                }),
                SqlValue::Real(value) => percent = Some(*value),
                SqlValue::Null | SqlValue::Text(_) | SqlValue::Blob(_) => {}
            }
        }
        self.percents.push(percent);
    }

    async fn insert(&self, client: &Client, text: &str) -> Result<(), tokio_postgres::Error> {
        let integers = self.integers.iter();
        let integers = integers.map(|column| -> Parameter<'_> { (column, Type::INT8_ARRAY) });
        let mut values: Vec<_> = integers.collect();
        values.push((&self.percents, Type::FLOAT8_ARRAY));
        client.query_typed(text, &values).await.map(drop)
    }
}

impl SqlConnection for PostgresConnection {
    fn execute(&self, statement: Statement, values: &[SqlValue<'_>]) -> SqlResult<()> {
        if ADDS_TEXTS
            .iter()
            .any(|adds| adds.dollars == statement.dollars)
        {
            self.adds_texts.set(true);
        }
        let mut pipeline = self.pipeline.borrow_mut();
        if statement.dollars == sql::ADD_FACT.dollars {
            pipeline.facts.add(values);
            if pipeline.facts.percents.len() >= MAX_FACTS {
                pipeline.queue_facts();
            }
        } else {
            let values = values.iter().map(SqlValue::to_static).collect();
            let (text, kind) = (statement.dollars, MessageKind::Statement(values));
            match sees_facts(text) {
                true => pipeline.queue(text, kind),
                false => pipeline.waiting.push(Message { text, kind }),
            }
        }
        drop(pipeline);
        self.flush_if_full()
    }

    fn query(
        &self,
        statement: Statement,
        values: &[SqlValue<'_>],
        each: &mut dyn FnMut(&dyn SqlRow) -> SqlResult<ControlFlow<()>>,
    ) -> SqlResult<()> {
        let ahead = match ahead_key(statement, values) {
            Some(key) => self.take_ahead(&key)?,
            None => None,
        };
        let rows = match ahead {
            Some(rows) => rows,
            None => {
                let values = values.iter().map(SqlValue::to_static).collect();
                let kind = MessageKind::Statement(values);
                self.pipeline.borrow_mut().queue(statement.dollars, kind);
                self.flush()?
            }
        };
        for row in &rows {
            if each(row)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn read_ahead(&self, statement: Statement, key: &[i64]) {
        let key = (statement.dollars, key.to_vec());
        let mut pipeline = self.pipeline.borrow_mut();
        if pipeline.ahead.contains_key(&key) {
            return;
        }
        pipeline.ahead.insert(key.clone(), None);
        let (text, kind) = (statement.dollars, MessageKind::Ahead(key));
        pipeline.queue(text, kind);
    }

    fn forget(&self, statement: Statement, key: &[i64]) {
        let key = (statement.dollars, key.to_vec());
        self.pipeline.borrow_mut().ahead.remove(&key);
    }

    fn is_server(&self) -> bool {
        true
    }

    fn notify(&self, notification: Notification) {
        self.notification.set(Some(notification));
    }
}

impl Drop for PostgresConnection {
    fn drop(&mut self) {
        // Closes the socket, which a server that does not answer would keep open.
        self.driver.abort();
        self.runtime.block_on(yield_now());
    }
}

fn shared(connection: &PostgresConnection) -> &dyn SqlConnection {
    connection
}

/// Returns whether a change depends on the rows of `fact` that were added before it: it changes them too,
/// or undoes them.
fn sees_facts(text: &str) -> bool {
    ["fact", "SAVEPOINT"].iter().any(|word| text.contains(word))
}

/// Returns the key of a query that may have been announced.
fn ahead_key(statement: Statement, values: &[SqlValue<'_>]) -> Option<AheadKey> {
    let integers = values.iter().map(|value| match value {
        SqlValue::Integer(value) => Some(*value),
        _ => None,
    });
    let integers: Option<Vec<i64>> = integers.collect();
    Some((statement.dollars, integers?))
}

/// Sends messages in their order, and then waits for their results.
async fn run_all(
    client: &Client,
    messages: &[Message],
) -> Result<Vec<Vec<Row>>, tokio_postgres::Error> {
    let mut running = Vec::with_capacity(messages.len());
    for message in messages {
        let mut result = Box::pin(maybe_done(run(client, message)));
        // The first poll sends it.
        poll_fn(|cx| {
            let _is_done = result.as_mut().poll(cx).is_ready();
            Poll::Ready(())
        })
        .await;
        running.push(result);
    }
    let mut results = Vec::with_capacity(running.len());
    for mut result in running {
        result.as_mut().await;
        results.push(
            result
                .as_mut()
                .take_output()
                .transpose()?
                .unwrap_or_default(),
        );
    }
    Ok(results)
}

async fn run(client: &Client, message: &Message) -> Result<Vec<Row>, tokio_postgres::Error> {
    let owned;
    let values = match &message.kind {
        MessageKind::Batch => {
            client.batch_execute(message.text).await?;
            return Ok(Vec::new());
        }
        MessageKind::Notification(notification) => {
            let payload = notification.to_string();
            let parameters: [Parameter<'_>; 1] = [(&payload, Type::TEXT)];
            let notified = client.query_typed(message.text, &parameters).await;
            // Those who wait look without it, later.
            let _notified = notified.is_ok();
            return Ok(Vec::new());
        }
        MessageKind::Facts(facts) => {
            facts.insert(client, message.text).await?;
            return Ok(Vec::new());
        }
        MessageKind::Statement(values) => values,
        MessageKind::Ahead((_, key)) => {
            owned = key.iter().map(|value| SqlValue::Integer(*value)).collect();
            &owned
        }
    };
    let typed = values.iter().map(|value| (value, value.postgres_type()));
    let rows = pin!(client.query_typed_raw(message.text, typed).await?);
    rows.try_collect().await
}
