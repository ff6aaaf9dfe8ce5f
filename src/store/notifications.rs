//! Notifications between the processes that share a store.
//!
//! They only wake those who wait: what has happened is in the store, which they read at once. One may get
//! lost, so they also look from time to time.

use std::fmt;

use tokio::sync::broadcast;

/// A change that other processes may wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notification {
    /// A purge, which also ends leases.
    Purged,
    /// Usage has changed that others may have cached.
    Changed,
    /// A process has applied purges.
    PurgesApplied,
    /// A lease ended. This is a hash of its name: the name has a customer's id, and any user of the
    /// database can listen.
    LeaseEnded(u32),
    /// All customers were refreshed, or a check found no newer date.
    FleetRefreshed,
    /// Upstream asked for a pause.
    Paused,
    /// Anything: notifications may have been lost.
    Unknown,
}

/// Passes notifications on within this process; clones share the receivers.
#[derive(Clone, Debug)]
pub(crate) struct Notifier(broadcast::Sender<Notification>);

/// The notifications from a moment on. By default, none ever comes.
#[derive(Debug)]
pub struct Notifications(broadcast::Receiver<Notification>);

/// A receiver that misses more than this is woken in any case.
const MAX_WAITING: usize = 64;

// === impl Notification ===

impl Notification {
    pub(crate) fn lease_ended(name: &str) -> Self {
        Self::LeaseEnded(lease_hash(name))
    }

    /// Reads what [`fmt::Display`] wrote. A newer release may send others.
    pub(super) fn parse(text: &str) -> Self {
        match text.split_once('/') {
            None if text == "purged" => Self::Purged,
            None if text == "changed" => Self::Changed,
            None if text == "purges-applied" => Self::PurgesApplied,
            None if text == "fleet-refreshed" => Self::FleetRefreshed,
            None if text == "paused" => Self::Paused,
            Some(("lease-ended", hash)) => {
                let hash = u32::from_str_radix(hash, 16);
                hash.map_or(Self::Unknown, Self::LeaseEnded)
            }
            _ => Self::Unknown,
        }
    }

    /// Returns whether a lease of this name may have ended.
    pub fn may_end(self, lease: &str) -> bool {
        self == Self::Purged || self == Self::lease_ended(lease)
    }
}

impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Purged => f.write_str("purged"),
            Self::Changed => f.write_str("changed"),
            Self::PurgesApplied => f.write_str("purges-applied"),
            Self::LeaseEnded(hash) => write!(f, "lease-ended/{hash:08x}"),
            Self::FleetRefreshed => f.write_str("fleet-refreshed"),
            Self::Paused => f.write_str("paused"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

// === impl Notifier ===

impl Notifier {
    pub(crate) fn new() -> Self {
        Self(broadcast::Sender::new(MAX_WAITING))
    }

    /// Wakes those who wait for this.
    pub(crate) fn send(&self, notification: Notification) {
        // Perhaps nobody waits.
        let _receivers = self.0.send(notification).is_ok();
    }

    /// Returns the notifications from now on.
    pub(crate) fn subscribe(&self) -> Notifications {
        Notifications(self.0.subscribe())
    }
}

// === impl Notifications ===

impl Notifications {
    /// Completes when a notification came that is wanted, or that may be: since the last call, or since
    /// the receiver was made.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn wait_for(&mut self, is_wanted: impl Fn(Notification) -> bool) {
        loop {
            match self.0.recv().await {
                Ok(notification)
                    if !is_wanted(notification) && notification != Notification::Unknown => {}
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => break,
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
        // Those that came by now are answered by the same look.
        self.0 = self.0.resubscribe();
    }
}

impl Default for Notifications {
    fn default() -> Self {
        Notifier::new().subscribe()
    }
}

/// Returns a hash (FNV-1a) that all releases compute alike.
fn lease_hash(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn every_notification_is_read_as_it_was_written() {
        for notification in [
            Notification::Purged,
            Notification::Changed,
            Notification::PurgesApplied,
            Notification::lease_ended("call/customers"),
            Notification::FleetRefreshed,
            Notification::Paused,
        ] {
            assert_eq!(Notification::parse(&notification.to_string()), notification);
        }
        for other in ["", "lease-ended", "lease-ended/x", "of-a-newer-release/7"] {
            assert_eq!(Notification::parse(other), Notification::Unknown, "{other}");
        }
    }

    #[test]
    fn the_hash_of_a_lease_is_the_same_in_all_releases() {
        assert_eq!(lease_hash("foobar"), 0xbf9c_f968);
    }

    fn is_woken(notifications: &mut Notifications) -> bool {
        let wanted = |notification| notification == Notification::Purged;
        notifications.wait_for(wanted).now_or_never().is_some()
    }

    #[test]
    fn what_is_wanted_or_unknown_wakes_once_however_often_it_came() {
        let notifier = Notifier::new();
        let mut notifications = notifier.subscribe();

        for (sent, wakes) in [
            (&[][..], false),
            (&[Notification::Paused], false),
            (&[Notification::Purged, Notification::Purged], true),
            (&[Notification::Paused, Notification::Unknown], true),
            (&[Notification::Paused; MAX_WAITING + 1], true),
        ] {
            for notification in sent {
                notifier.send(*notification);
            }

            assert_eq!(is_woken(&mut notifications), wakes, "{sent:?}");
            assert!(!is_woken(&mut notifications), "{sent:?}");
        }
    }

    #[test]
    fn without_a_server_nothing_wakes() {
        assert!(!is_woken(&mut Notifications::default()));
    }
}
