//! Encrypted tokens, on the connection for coordination.

use std::time::Duration;

use tokio_postgres::types::Type;

use super::{
    coordination::{CoordinationClient, Parameter, get, millis},
    error::PostgresError,
};
use crate::{
    sealing::{KeyId, SealedSecret},
    store::{SealedTokens, StoredTokens},
};

const TOKENS: &str = "WITH clock AS (
        SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT) AS now
    )
    SELECT version, greatest(now - changed_at, 0), key_id, refresh_token, access_token,
        greatest(expires_at - now, 0), lifetime, origins
    FROM usage_proxy.token, clock WHERE name = $1";

/// A version is a time, so that it grows after its row was deleted too.
const INSERT_TOKENS: &str = "WITH clock AS (
        SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT) AS now
    )
    INSERT INTO usage_proxy.token (name, version, changed_at, key_id, refresh_token, access_token,
        expires_at, lifetime, origins)
    SELECT $1, now, now, $2, $3, $4, now + $5, $6, $7 FROM clock
    ON CONFLICT (name) DO NOTHING RETURNING version";

const UPDATE_TOKENS: &str = "WITH clock AS (
        SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT) AS now
    )
    UPDATE usage_proxy.token SET version = greatest(now, version + 1), changed_at = now, key_id = $2,
        refresh_token = $3, access_token = $4, expires_at = now + $5, lifetime = $6, origins = $7
    FROM clock WHERE name = $1 AND version = $8 RETURNING version";

// === impl CoordinationClient ===

impl CoordinationClient {
    pub(super) async fn tokens(
        &self,
        account: &str,
    ) -> Result<Option<StoredTokens>, PostgresError> {
        let rows = self.query(TOKENS, &[(&account, Type::TEXT)]).await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        let number = |column| Ok::<i64, PostgresError>(get(row, column)?.unwrap_or_default());
        let duration = |column| number(column).map(|it| Duration::from_millis(it.unsigned_abs()));
        let key_id = get(row, 2)?
            .and_then(KeyId::parse)
            .unwrap_or(KeyId::UNKNOWN);
        let sealed = |column| {
            let bytes: Option<Vec<u8>> = get(row, column)?;
            Ok::<_, PostgresError>(bytes.map(|bytes| SealedSecret { key_id, bytes }))
        };
        let origins: &[u8] = get(row, 7)?.unwrap_or_default();
        Ok(Some(StoredTokens {
            version: number(0)?,
            age: duration(1)?,
            tokens: SealedTokens {
                key_id,
                refresh_token: sealed(3)?,
                access_token: sealed(4)?,
                remaining: duration(5)?,
                lifetime: duration(6)?,
                origins: origins.as_chunks().0.to_vec(),
            },
        }))
    }

    pub(super) async fn swap_tokens(
        &self,
        account: &str,
        seen: Option<i64>,
        tokens: SealedTokens,
    ) -> Result<Option<i64>, PostgresError> {
        let key_id = tokens.key_id.to_string();
        let bytes = |sealed: Option<SealedSecret>| sealed.map(|sealed| sealed.bytes);
        let refresh_token = bytes(tokens.refresh_token);
        let access_token = bytes(tokens.access_token);
        let (remaining, lifetime) = (millis(tokens.remaining), millis(tokens.lifetime));
        let origins = tokens.origins.concat();
        let mut parameters: Vec<Parameter<'_>> = vec![
            (&account, Type::TEXT),
            (&key_id, Type::TEXT),
            (&refresh_token, Type::BYTEA),
            (&access_token, Type::BYTEA),
            (&remaining, Type::INT8),
            (&lifetime, Type::INT8),
            (&origins, Type::BYTEA),
        ];
        let statement = match &seen {
            Some(version) => {
                parameters.push((version, Type::INT8));
                UPDATE_TOKENS
            }
            None => INSERT_TOKENS,
        };
        let rows = self.query(statement, &parameters).await?;
        rows.first().map_or(Ok(None), |row| get(row, 0))
    }
}
