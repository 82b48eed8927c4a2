//! ApiVersions: what is served, from the table itself.

use kafka_protocol::ResponseError as Code;
use kafka_protocol::messages::api_versions_response::{
    ApiVersion, FinalizedFeatureKey, SupportedFeatureKey,
};
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use kafka_protocol::protocol::StrBytes;

use super::{API_TABLE, Failure, KafkaSession, Request};
use crate::kafka::respond;
use crate::net::Outbox;

/// Which generation of transactions clients may use: 2 is an epoch for each (KIP-890).
const TRANSACTIONS: &str = "transaction.version";
const TRANSACTIONS_LEVEL: i16 = 2;

fn response(error: i16, keys: &[i16]) -> ApiVersionsResponse {
    let wanted = |row: &&super::Row| keys.is_empty() || keys.contains(&row.key);
    let keys = API_TABLE.iter().filter(wanted).map(|row| {
        ApiVersion::default()
            .with_api_key(row.key)
            .with_min_version(row.min)
            .with_max_version(row.max)
    });
    let transactions = StrBytes::from_static_str(TRANSACTIONS);
    ApiVersionsResponse::default()
        .with_error_code(error)
        .with_api_keys(keys.collect())
        .with_supported_features(vec![
            SupportedFeatureKey::default()
                .with_name(transactions.clone())
                .with_min_version(0)
                .with_max_version(TRANSACTIONS_LEVEL),
        ])
        .with_finalized_features_epoch(0)
        .with_finalized_features(vec![
            FinalizedFeatureKey::default()
                .with_name(transactions)
                .with_min_version_level(0)
                .with_max_version_level(TRANSACTIONS_LEVEL),
        ])
}

pub(super) fn versions(
    _: &mut KafkaSession,
    request: &mut Request,
    out: &mut Outbox,
) -> Result<(), Failure> {
    let body: ApiVersionsRequest = request.decode()?;
    // KIP-511: the client's name must be a name.
    let named = |text: &str| {
        let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        edge(text.as_bytes().first())
            && edge(text.as_bytes().last())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte))
    };
    let valid = request.version() < 3
        || (named(&body.client_software_name) && named(&body.client_software_version));
    respond(
        out,
        &request.header,
        &response(
            if valid {
                0
            } else {
                Code::InvalidRequest.code()
            },
            &[],
        ),
    )
}

/// A newer client asks in a version that we do not know: it is told in version 0 which versions of this one request there
/// are, as Kafka does, and asks again.
pub(in crate::kafka) fn unsupported_version(
    request: &Request,
    out: &mut Outbox,
) -> Result<(), Failure> {
    let mut header = request.header;
    header.version = 0;
    let body = response(Code::UnsupportedVersion.code(), &[header.key]);
    respond(out, &header, &body)
}
