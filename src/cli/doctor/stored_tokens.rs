//! The check of the tokens that replicas share: whether the keys of the file decrypt them.

use super::{
    super::{CliError, terminal::while_waiting},
    report::{CheckFinding, DoctorReport},
};
use crate::{
    config::{Config, PostgresConfig},
    partner_center::{LOCKED_ADVICE, OpenedTokens, TokenAccount},
    sealing::SealingKeys,
    shutdown::Shutdown,
    store::{StoreError, StoredTokens, postgres},
};

const CHECK: &str = "stored tokens";

/// The tokens that replicas share.
pub(super) struct SharedTokens {
    /// `None`: there are none, or they could not be read.
    pub(super) tokens: Option<OpenedTokens>,
}

/// Reads and decrypts the stored tokens. Returns `None` if the configuration shares none.
pub(super) async fn check(
    config: &Config,
    shutdown: &Shutdown,
    report: &mut DoctorReport,
) -> Result<Option<SharedTokens>, CliError> {
    let database = config.store.postgres();
    let key_file = config.store.encryption_key_file.as_ref();
    let account = TokenAccount::new(&config.upstream.auth);
    let (Some(database), Some(key_file), Some(account)) = (database, key_file, account) else {
        return Ok(None);
    };
    // The check of the files has reported an error.
    let Ok(keys) = SealingKeys::read(key_file) else {
        report.add(CheckFinding::skipped(
            CHECK,
            "there is no key to decrypt them",
        ))?;
        return Ok(Some(SharedTokens { tokens: None }));
    };
    let reading = read(database, &account, shutdown);
    let tokens = match while_waiting("reading the stored tokens", reading).await {
        Ok(Some(stored)) => {
            let tokens = account.open(stored, &keys);
            report.add(finding(&tokens, &account, &keys))?;
            Some(tokens)
        }
        Ok(None) => {
            let said = "there are none yet; the service stores its first ones";
            report.add(CheckFinding::right(CHECK, said))?;
            None
        }
        Err(error) => {
            report.add(CheckFinding::skipped(CHECK, error.to_string()))?;
            None
        }
    };
    Ok(Some(SharedTokens { tokens }))
}

async fn read(
    database: PostgresConfig,
    account: &TokenAccount,
    shutdown: &Shutdown,
) -> Result<Option<StoredTokens>, StoreError> {
    let store = postgres::coordinate(database, shutdown.clone()).await?;
    store.tokens(account.name().clone()).await
}

fn finding(tokens: &OpenedTokens, account: &TokenAccount, keys: &SealingKeys) -> CheckFinding {
    let age = tokens.age.as_secs() / 60;
    if let Some(error) = tokens.locked() {
        let said = format!("the refresh token cannot be decrypted: {error}");
        let hint = format!(
            "{LOCKED_ADVICE}. To begin with the token of the file instead: DELETE FROM \
             usage_proxy.token WHERE name = '{}'",
            account.name()
        );
        return CheckFinding::wrong(CHECK, said).hint(hint);
    }
    let key = tokens.key_id;
    let said = format!("stored {age} min ago, encrypted with the key {key}");
    match keys.ids().next() {
        Some(first) if first != key => {
            let hint = format!(
                "keep this key in store.encryption_key_file until the service has renewed the tokens, \
                 which encrypts them with the first key, {first}"
            );
            CheckFinding::note(CHECK, said).hint(hint)
        }
        _ => CheckFinding::right(CHECK, said),
    }
}
