use crate::{
    domain::{CustomerId, Resource, UpstreamApi},
    partner_center::{
        PartnerCenter, UpstreamDeps, UpstreamStartError,
        test_support::{TestCredentials, TestReply, UpstreamFixture, usage},
    },
    service::source::{CallTrace, SourceCall, UsageSource},
};

async fn ask_for(partner_center: &PartnerCenter, customer: u32) {
    let customer = format!("00000000-0000-0000-0000-{customer:012}");
    let call = SourceCall {
        resource: Resource::InsightsUsage(CustomerId::parse(&customer).unwrap()),
        trace: CallTrace::default(),
        requested_at: partner_center.clock.now(),
    };
    partner_center.fetch(call).await.unwrap();
}

#[tokio::test]
async fn silence_of_the_insights_call_matters_only_where_it_is_the_source() {
    for (source, suspicious) in [
        (UpstreamApi::Insights, true),
        (UpstreamApi::Commercial, false),
    ] {
        let mut fixture = UpstreamFixture::new(TestCredentials::TokenFile).await;
        fixture.config.source = source;
        fixture
            .api
            .replies([(); 3].map(|()| TestReply::json(200, &usage(0))));
        let partner_center = fixture.start();

        for customer in 1..=3 {
            ask_for(&partner_center, customer).await;
        }

        let advice = partner_center.status().empty_responses_advice;
        assert_eq!(advice.is_some(), suspicious, "{source:?}");
    }
}

#[tokio::test]
async fn a_value_that_no_header_can_hold_stops_the_start() {
    let mut fixture = UpstreamFixture::new(TestCredentials::TokenFile).await;
    fixture.config.application = "two\nlines".to_owned();
    let deps = UpstreamDeps {
        clock: fixture.clock.clone(),
        jitter: fixture.jitter,
        shutdown: fixture.shutdown.clone(),
        registry: &fixture.registry,
        tracer: None,
    };

    let error = PartnerCenter::new(&fixture.config, deps).unwrap_err();

    let key = "upstream.application";
    assert!(matches!(error, UpstreamStartError::Header { key: found } if found == key));
}
