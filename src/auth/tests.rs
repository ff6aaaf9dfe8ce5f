//! Tests of the callers file: a file in, errors or callers out.

use std::{fs, path::Path, sync::Arc};

use proptest::prelude::*;
use tempfile::TempDir;

use super::{
    callers_parser::{self, CallerEntry},
    *,
};
use crate::{
    access_key::KeyHash,
    clock::{Clock as _, SystemClock},
    domain::{CallerScope, CustomerId, samples},
    tables_file::ParsedTables,
};

const HASH_OF_ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
const DOCUMENTED: &str = "4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04";

/// A folder with a callers file, and perhaps other files beside it.
struct CallersFolder(TempDir);

impl CallersFolder {
    fn new(callers: impl AsRef<[u8]>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("callers.toml"), callers).unwrap();
        Self(folder)
    }

    fn with_file(self, name: &str, content: &str) -> Self {
        fs::write(self.0.path().join(name), content).unwrap();
        self
    }

    fn read(&self) -> ParsedTables<Vec<CallerEntry>> {
        callers_parser::parse(&self.0.path().join("callers.toml"))
    }

    fn callers(&self) -> Vec<CallerEntry> {
        self.read()
            .content
            .unwrap_or_else(|errors| panic!("{errors}"))
    }

    /// The errors, without the path of the folder.
    fn errors(&self) -> Vec<String> {
        let folder = format!("{}/", self.0.path().display());
        let faults = self.read().content.expect_err("the file has errors");
        faults
            .to_string()
            .lines()
            .map(|line| line.replace(&folder, ""))
            .collect()
    }
}

/// A valid caller with additional lines.
fn caller_toml(name: &str, proof: &str, more: &str) -> String {
    format!(
        "[[caller]]\nname = \"{name}\"\n{proof}\ncustomers = [\"*\"]\nscopes = [\"usage:read\"]\n{more}\n"
    )
}

fn key_toml() -> String {
    format!("key_sha256 = [\"{HASH_OF_ABC}\"]")
}

#[test]
fn every_field_of_a_caller_is_read() {
    let folder = CallersFolder::new(format!(
        "[[caller]]\nname = \"grafana\"\nkey_sha256 = [\"{HASH_OF_ABC}\"]\njwt_subject = \"api://g\"\n\
         client_certificate = \"g.contoso.com\"\ncustomers = [\"{DOCUMENTED}\"]\n\
         scopes = [\"usage:read\", \"cache:refresh\"]\nrate = \"50/s\"\n"
    ));

    let callers = folder.callers();

    let [declared] = callers.as_slice() else {
        panic!("{callers:?}")
    };
    let other = CustomerId::parse("00000000-0000-4000-8000-000000000001").unwrap();
    assert_eq!(&**declared.caller.name(), "grafana");
    assert!(declared.caller.may_read(samples::customer()));
    assert!(!declared.caller.may_read(other));
    assert!(declared.caller.has_scope(CallerScope::CacheRefresh));
    assert_eq!(declared.key_hashes, [KeyHash::of_key(b"abc")]);
    assert_eq!(declared.jwt_subject.as_deref(), Some("api://g"));
    assert_eq!(
        declared.client_certificate.as_deref(),
        Some("g.contoso.com")
    );
    let rate = declared.rate.unwrap();
    assert_eq!((rate.quota().get(), rate.period().as_secs()), (50, 1));
}

#[test]
fn the_example_callers_file_is_valid() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples/callers.toml");

    check_callers_file(&example).unwrap_or_else(|errors| panic!("{errors}"));
}

#[test]
fn all_errors_are_reported_at_once_with_position_and_caller() {
    let folder = CallersFolder::new(
        "colour = 1\n[[caller]]\nname = \"a\"\nkey_sha = []\ncustomers = [\"*\", \"x\"]\n\
         scopes = [\"usage:write\"]\nrate = \"50\"\n[[caller]]\nkey_sha256 = [\"up_canary\"]\n",
    );

    let faults = folder.errors();

    let expected = [
        "callers.toml:1:1: colour: unknown; expected [[caller]]",
        "callers.toml:2:1: caller \"a\": has no credential; expected one or more of key_sha256",
        "callers.toml:4:1: caller \"a\": key_sha: unknown field; the nearest is key_sha256",
        "callers.toml:5:19: caller \"a\": customers = \"x\": is not a GUID; expected ",
        "callers.toml:6:11: caller \"a\": scopes = \"usage:write\": is not a scope; expected a list of `usage:read`",
        "callers.toml:7:8: caller \"a\": rate = \"50\": is not a rate; expected a number of requests",
        "callers.toml:8:1: caller 2: customers or customers_file: missing",
        "callers.toml:8:1: caller 2: name: missing",
        "callers.toml:8:1: caller 2: scopes: missing",
        "callers.toml:9:15: caller 2: key_sha256 (value not shown): is a key, not its hash",
    ];
    for expected in expected {
        let reported = faults.iter().any(|fault| fault.starts_with(expected));
        assert!(reported, "{expected}\nin {faults:#?}");
    }
    assert_eq!(faults.len(), expected.len(), "{faults:#?}");
    assert!(!faults.concat().contains("canary"));
}

#[test]
fn a_bad_value_is_rejected_in_every_field() {
    for (field, reason) in [
        ("name = \"anonymous\"", "is reserved"),
        ("name = \"two words\"", "is not a name"),
        ("name = \"\"", "is not a name"),
        ("key_sha256 = []", "is empty"),
        ("key_sha256 = [7]", "is not text in quotes"),
        ("key_sha256 = [\"abc\"]", "is not a hash"),
        ("jwt_subject = \"\"", "is empty"),
        ("jwt_subject = [\"a\"]", "is not text in quotes"),
        ("client_certificate = \" a\"", "begins or ends with a space"),
        ("customers = []", "is empty"),
        (
            "customers = [\"*\", \"4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04\"]",
            "\"*\" is every customer",
        ),
        ("customers_file = \"customers.txt\"", "expected one of them"),
        ("scopes = []", "is empty"),
        ("rate = \"0/s\"", "is not a rate"),
        ("rate = \"-1/s\"", "is not a rate"),
        ("rate = \"1/d\"", "is not a rate"),
        ("rate = \"1000001/h\"", "is out of range"),
        ("rate = 50", "is not text in quotes"),
    ] {
        let name = field.split(' ').next().unwrap();
        let right = caller_toml("a", &key_toml(), "");
        let others: Vec<_> = right
            .lines()
            .filter(|line| line.split(' ').next() != Some(name))
            .collect();
        let folder = CallersFolder::new(format!("{}\n{field}\n", others.join("\n")))
            .with_file("customers.txt", DOCUMENTED);

        let faults = folder.errors();

        assert!(faults[0].contains(reason), "{field}: {faults:?}");
        assert_eq!(faults.len(), 1, "{field}: {faults:?}");
    }
}

#[test]
fn two_callers_cannot_share_a_name_or_a_credential() {
    for (one, other, field) in [
        (
            caller_toml("a", &key_toml(), ""),
            caller_toml("a", "jwt_subject = \"s\"", ""),
            "name",
        ),
        (
            caller_toml("a", &key_toml(), ""),
            caller_toml("b", &key_toml(), ""),
            "key_sha256",
        ),
        (
            caller_toml("a", "jwt_subject = \"s\"", ""),
            caller_toml("b", "jwt_subject = \"s\"", ""),
            "jwt_subject",
        ),
        (
            caller_toml("a", "client_certificate = \"s\"", ""),
            caller_toml("b", "client_certificate = \"s\"", ""),
            "client_certificate",
        ),
    ] {
        let faults = CallersFolder::new(format!("{one}{other}")).errors();

        assert_eq!(faults.len(), 1, "{faults:?}");
        let part = format!("{field}: is already used at callers.toml:");
        assert!(faults[0].contains(&part), "{faults:?}");
    }
}

#[test]
fn a_file_without_callers_is_rejected() {
    for (content, reason) in [
        ("", "names no caller"),
        ("# nothing\n", "names no caller"),
        ("caller = []", "is not a list of tables"),
        ("[caller]\nname = \"a\"", "is not a list of tables"),
        ("caller = [1]", "is not a table"),
        ("[[caller]\n", "not TOML"),
    ] {
        let faults = CallersFolder::new(content).errors();

        assert!(faults[0].contains(reason), "{content:?}: {faults:?}");
    }
    assert!(CallersFolder::new(b"\xff").errors()[0].contains("is not UTF-8"));
    let missing = callers_parser::parse(Path::new("no/such/file"))
        .content
        .unwrap_err();
    assert!(missing.to_string().contains("cannot be read"), "{missing}");
}

#[test]
fn customers_can_be_listed_in_a_separate_file() {
    let callers = format!(
        "[[caller]]\nname = \"a\"\n{}\ncustomers_file = \"some.txt\"\nscopes = [\"usage:read\"]\n",
        key_toml()
    );
    let folder = CallersFolder::new(&callers).with_file(
        "some.txt",
        "\u{feff}# ours\n\n4D3CF487-70F4-4E1E-9FF1-B2BFCE8D9F04   # Contoso\r\n",
    );

    let declared = folder.callers();

    assert!(declared[0].caller.may_read(samples::customer()));
    assert_eq!(folder.read().files.len(), 2, "both are watched");
    for (content, fault) in [
        ("\n4d3c\n", "some.txt:2:1: \"4d3c\": is not a GUID"),
        ("# none\n", "some.txt: names no customer"),
    ] {
        let faults = CallersFolder::new(&callers)
            .with_file("some.txt", content)
            .errors();
        assert!(faults[0].starts_with(fault), "{faults:?}");
    }
    let faults = CallersFolder::new(&callers).errors();
    assert!(
        faults[0].starts_with("some.txt: cannot be read"),
        "{faults:?}"
    );
}

#[test]
fn each_credential_finds_only_its_own_caller() {
    let declared = CallersFolder::new(format!(
        "{}{}{}",
        caller_toml("a", &key_toml(), ""),
        caller_toml("b", "jwt_subject = \"s\"", ""),
        caller_toml("c", "client_certificate = \"c.contoso.com\"", ""),
    ))
    .callers();

    let set = CallerSet::new(declared, &CallerSet::default(), SystemClock.now());

    let name = |identity: Option<&Arc<CallerIdentity>>| {
        identity.map(|identity| identity.caller().name().to_string())
    };
    assert_eq!(name(set.by_key(b"abc")).as_deref(), Some("a"));
    assert_eq!(name(set.by_subject("s")).as_deref(), Some("b"));
    assert_eq!(
        name(set.by_certificate("c.contoso.com")).as_deref(),
        Some("c")
    );
    for key in [&b""[..], b"abd", HASH_OF_ABC.as_bytes(), b"s"] {
        assert!(set.by_key(key).is_none(), "{key:?}");
    }
    assert!(set.by_subject("c.contoso.com").is_none());
    assert!(set.by_certificate("s").is_none());
}

#[test]
fn unsent_bytes_still_count_after_a_reload() {
    let set = |name: &str, rights: &str, before: &CallerSet| {
        let declared = CallersFolder::new(caller_toml(name, &key_toml(), rights)).callers();
        CallerSet::new(declared, before, SystemClock.now())
    };
    let unsent = |set: &CallerSet| Arc::clone(set.by_key(b"abc").unwrap().unsent());
    let first = set("a", "", &CallerSet::default());
    assert!(unsent(&first).acquire(9));

    let same = set("a", "rate = \"3/h\"", &first);
    let other = set("b", "", &same);

    assert_eq!(unsent(&same).used(), 9);
    assert_eq!(unsent(&other).used(), 0);
}

/// A caller's name, its keys, customers, scopes and rate, as a file may state them.
type GeneratedCaller = (Vec<u64>, Option<Vec<u128>>, bool, Option<(u32, char)>);

fn generated_caller() -> impl Strategy<Value = GeneratedCaller> {
    (
        prop::collection::vec(any::<u64>(), 1..3),
        prop::option::of(prop::collection::vec(any::<u128>(), 1..4)),
        any::<bool>(),
        prop::option::of((1..=1_000_000_u32, prop::sample::select(vec!['s', 'm', 'h']))),
    )
}

fn hash(index: usize, key: u64) -> KeyHash {
    KeyHash::of_key(format!("{index}/{key}").as_bytes())
}

fn customer(id: u128) -> CustomerId {
    CustomerId::parse(&uuid::Uuid::from_u128(id).to_string()).unwrap()
}

fn callers_toml(callers: &[GeneratedCaller]) -> String {
    let quoted = |texts: Vec<String>| format!("{texts:?}");
    let mut text = String::new();
    for (index, (keys, customers, refreshes, rate)) in callers.iter().enumerate() {
        let hashes = keys.iter().map(|key| hash(index, *key).to_string());
        let customers = match customers {
            None => vec!["*".to_owned()],
            Some(these) => these.iter().map(|id| customer(*id).to_string()).collect(),
        };
        let scopes: &[&str] = if *refreshes {
            &["usage:read", "cache:refresh"]
        } else {
            &["usage:read"]
        };
        text.push_str(&format!(
            "[[caller]]\nname = \"caller-{index}\"\nkey_sha256 = {}\ncustomers = {}\nscopes = {scopes:?}\n",
            quoted(hashes.collect()),
            quoted(customers),
        ));
        if let Some((quota, unit)) = rate {
            text.push_str(&format!("rate = \"{quota}/{unit}\"\n"));
        }
    }
    text
}

proptest! {
    #![proptest_config(crate::proptest_support::proptest_config())]

    #[test]
    fn any_text_is_parsed_or_rejected(text in "(\\[\\[caller\\]\\]\n|[a-z_0-9]{1,12} = |\\[?\"[^\"]{0,9}\"\\]?\n|.{0,9}|\n){0,12}") {
        let reading = CallersFolder::new(&text).read();

        if let Ok(callers) = reading.content {
            prop_assert!(!callers.is_empty());
        }
    }

    #[test]
    fn a_generated_callers_file_is_read_back_unchanged(mut callers in prop::collection::vec(generated_caller(), 1..6), probe: u128) {
        for (keys, ..) in &mut callers {
            keys.sort_unstable();
            keys.dedup();
        }

        let declared = CallersFolder::new(callers_toml(&callers)).callers();

        prop_assert_eq!(declared.len(), callers.len());
        for (index, (read, (keys, customers, refreshes, rate))) in declared.iter().zip(&callers).enumerate() {
            prop_assert_eq!(&**read.caller.name(), format!("caller-{index}"));
            let hashes: Vec<_> = keys.iter().map(|key| hash(index, *key)).collect();
            prop_assert_eq!(&read.key_hashes, &hashes);
            prop_assert_eq!(read.caller.has_scope(CallerScope::CacheRefresh), *refreshes);
            prop_assert_eq!(read.rate.map(|rate| rate.quota().get()), rate.map(|(quota, _)| quota));
            for id in customers.iter().flatten() {
                prop_assert!(read.caller.may_read(customer(*id)));
            }
            let strangers = customers.as_ref().is_none_or(|these| these.contains(&probe));
            prop_assert_eq!(read.caller.may_read(customer(probe)), strangers);
        }
    }
}
