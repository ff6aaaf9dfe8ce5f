//! Property tests: no input causes a panic, and only an unchanged signed token is accepted.

use std::sync::LazyLock;

use proptest::{prelude::*, sample::Index};
use serde_json::{Value, json};

use super::{
    support::{TestSigner, jwks},
    tests::{NOW, config, valid_claims},
    *,
};

struct SignedFixture {
    config: JwtConfig,
    keys: KeySet,
    signers: Vec<(TestSigner, &'static str)>,
}

static FIXTURE: LazyLock<SignedFixture> = LazyLock::new(|| {
    let signers = vec![
        (TestSigner::rsa("r"), "RS256"),
        (TestSigner::rsa("r"), "PS256"),
        (TestSigner::ec("e"), "ES256"),
        (TestSigner::ed("d"), "EdDSA"),
    ];
    let mut config = config("https://issuer.example/keys");
    config.scopes_claim = Some("scope".to_owned());
    config.customers_claim = Some("customers".to_owned());
    let published: Vec<_> = signers.iter().map(|(signer, _)| signer).collect();
    let keys = KeySet::parse(jwks(&published).as_bytes(), &config).unwrap();
    SignedFixture {
        config,
        keys,
        signers,
    }
});

fn verify_token(token: &str) -> Result<VerifiedToken, TokenRejection> {
    let SignedFixture { config, keys, .. } = &*FIXTURE;
    let now = Timestamp::from_second(NOW).unwrap();
    let header = TokenHeader::parse(token)?;
    verify_with_keys(token, &header, keys, config, now).map(|(verified, _)| verified)
}

/// One change to a text.
#[derive(Clone, Debug)]
enum TextEdit {
    Replace(Index, char),
    Insert(Index, char),
    Remove(Index),
    Cut(Index),
    Swap(Index, Index),
}

impl TextEdit {
    fn apply(&self, text: &str) -> String {
        let mut text: Vec<char> = text.chars().collect();
        let length = text.len();
        match self {
            Self::Replace(at, with) => text[at.index(length)] = *with,
            Self::Insert(at, what) => text.insert(at.index(length + 1), *what),
            Self::Remove(at) => {
                text.remove(at.index(length));
            }
            Self::Cut(at) => text.truncate(at.index(length)),
            Self::Swap(one, other) => text.swap(one.index(length), other.index(length)),
        }
        text.into_iter().collect()
    }
}

fn text_edit() -> impl Strategy<Value = TextEdit> {
    let character = || prop_oneof![9 => proptest::char::range('!', '~'), 1 => any::<char>()];
    prop_oneof![
        (any::<Index>(), character()).prop_map(|(at, with)| TextEdit::Replace(at, with)),
        (any::<Index>(), character()).prop_map(|(at, what)| TextEdit::Insert(at, what)),
        any::<Index>().prop_map(TextEdit::Remove),
        any::<Index>().prop_map(TextEdit::Cut),
        (any::<Index>(), any::<Index>()).prop_map(|(one, other)| TextEdit::Swap(one, other)),
    ]
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        Just(json!(NOW)),
        "[ -~]{0,20}".prop_map(Value::from),
        Just(json!("*")),
        Just(json!("usage:read")),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{1,6}", inner, 0..6).prop_map(Value::from_iter),
        ]
    })
}

fn member_name(known: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop_oneof![
        9 => proptest::sample::select(known).prop_map(str::to_owned),
        1 => "[a-z]{1,5}",
    ]
}

proptest! {
    #![proptest_config(crate::proptest_support::proptest_config())]

    #[test]
    fn text_that_is_not_a_token_is_rejected(
        token in prop_oneof![
            ".{0,200}",
            "[A-Za-z0-9_-]{0,80}\\.[A-Za-z0-9_-]{0,80}\\.[A-Za-z0-9_-]{0,90}",
        ],
    ) {
        prop_assert!(verify_token(&token).is_err());
    }

    #[test]
    fn a_token_changed_anywhere_is_rejected(
        which in any::<Index>(),
        changes in prop::collection::vec(text_edit(), 1..4),
    ) {
        let (signer, algorithm) = which.get(&FIXTURE.signers);
        let token = signer.token(algorithm, &valid_claims());
        prop_assert!(verify_token(&token).is_ok());

        let mut changed = token.clone();
        for change in &changes {
            if !changed.is_empty() {
                changed = change.apply(&changed);
            }
        }

        prop_assume!(changed != token);
        prop_assert!(verify_token(&changed).is_err(), "{} was believed", changed);
    }

    #[test]
    fn any_token_header_is_accepted_or_rejected(
        which in any::<Index>(),
        members in prop::collection::btree_map(
            member_name(&["alg", "kid", "typ", "crit", "jwk", "jku", "x5c", "b64"]),
            json_value(),
            0..5,
        ),
    ) {
        let (signer, algorithm) = which.get(&FIXTURE.signers);
        let header = Value::from_iter(members);

        let judged = verify_token(&signer.token_with(&header, algorithm, &valid_claims()));

        prop_assert!(judged.is_err(), "{} was believed", header);
    }

    #[test]
    fn any_signed_claims_are_accepted_or_rejected(
        members in prop::collection::btree_map(
            member_name(&["exp", "nbf", "iat", "iss", "aud", "sub", "scope", "customers"]),
            json_value(),
            0..6,
        ),
    ) {
        let (signer, algorithm) = &FIXTURE.signers[3];
        let mut claims = valid_claims();
        claims.as_object_mut().unwrap().extend(members);

        if let Ok(verified) = verify_token(&signer.token(algorithm, &claims)) {
            prop_assert_eq!(&claims["iss"], &valid_claims()["iss"]);
            prop_assert_eq!(&claims["sub"], &json!(verified.subject()));
            prop_assert!(claims["exp"].as_f64().unwrap() > NOW as f64 - 60.0);
        }
    }

    #[test]
    fn any_published_keys_are_read_or_ignored(
        keys in prop::collection::vec(
            prop::collection::btree_map(
                member_name(&["kty", "kid", "use", "key_ops", "alg", "crv", "n", "e", "x", "y"]),
                json_value(),
                0..8,
            ).prop_map(Value::from_iter),
            0..5,
        ),
    ) {
        let SignedFixture { config, signers, .. } = &*FIXTURE;
        let mut document = json!({ "keys": keys });
        document["keys"].as_array_mut().unwrap().push(signers[3].0.jwk());

        let keys = KeySet::parse(document.to_string().as_bytes(), config).unwrap();

        // A key of no use beside it does not spoil one that is good.
        prop_assert!(keys.len() >= 1);
        let token = signers[3].0.token("EdDSA", &valid_claims());
        let header = TokenHeader::parse(&token).unwrap();
        prop_assert!(keys.find(&header).unwrap().claims(&token).is_ok());
    }

    #[test]
    fn bytes_that_are_not_a_key_set_give_none(document in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(KeySet::parse(&document, &FIXTURE.config).is_none());
    }
}
