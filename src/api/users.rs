//! Users, grants and the audit log over HTTP, for superusers: `/api/v1/users`, `/api/v1/redis-acl`, `/api/v1/grants`, `/api/v1/audit`. Answers come when the change is on disk.

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use broker::access::{
    self, AccessError, Credential, Grant, Kind, Pattern, Principal, Scope, Settings, Verbs,
};
use broker::{Durability, Effects, Locked, Millis, Need, ShardId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::gate::{Caller, wrong};
use crate::audit::{self, Event, Outcome};
use crate::auth::{self, PASSWORD_MAX};
use crate::config::Face;
use crate::node::Node;
use crate::resp::acl::file;

pub(super) fn routes() -> Router<Arc<Node>> {
    Router::new()
        .route("/users", get(list).post(create))
        .route("/users/{name}", get(show).patch(change).delete(remove))
        .route("/redis-acl", post(import_acl))
        .route("/grants", get(grants).post(grant).delete(revoke))
        .route("/audit", get(audit_rows))
        .route("/audit/verify", get(audit_verify))
}

type Answer = Result<Response, Wrong>;

/// An error's answer; in a box, since it is large and errors are rare.
#[derive(Debug)]
pub(super) struct Wrong(Box<Response>);

impl IntoResponse for Wrong {
    fn into_response(self) -> Response {
        *self.0
    }
}

impl Wrong {
    fn new(status: StatusCode, message: impl std::fmt::Display) -> Self {
        Self(Box::new(wrong(status, message)))
    }
}

/// A superuser who asks: everything here is for them only.
#[derive(Debug)]
pub(super) struct By(Caller);

impl By {
    pub(super) fn name(&self) -> Option<&str> {
        self.0.who.name()
    }
}

impl FromRequestParts<Arc<Node>> for By {
    type Rejection = Wrong;

    async fn from_request_parts(parts: &mut Parts, node: &Arc<Node>) -> Result<Self, Wrong> {
        let Some(caller) = parts.extensions.get::<Caller>() else {
            return Err(Wrong::new(StatusCode::UNAUTHORIZED, "log in"));
        };
        caller
            .superuser(node, parts.method.as_str(), parts.uri.path())
            .map_err(Wrong)?;
        Ok(Self(caller.clone()))
    }
}

fn bad(message: impl std::fmt::Display) -> Wrong {
    Wrong::new(StatusCode::BAD_REQUEST, message)
}

fn refused(error: AccessError) -> Wrong {
    let status = match error {
        AccessError::Exists(_) | AccessError::Last(_) => StatusCode::CONFLICT,
        AccessError::Unknown(_) => StatusCode::NOT_FOUND,
        _ => StatusCode::BAD_REQUEST,
    };
    Wrong::new(status, error)
}

/// Changes the catalog and the audit log in one record, and waits until it is on disk.
async fn commit(
    node: &Arc<Node>,
    by: &By,
    what: &str,
    object: String,
    edit: impl FnOnce(&mut Locked<'_>, &mut Effects) -> Result<(), AccessError> + Send + 'static,
) -> Result<(), Wrong> {
    let node = Arc::clone(node);
    let event = Event {
        face: Face::Http,
        who: by.name().unwrap_or_default().to_owned(),
        from: Some(by.0.from),
        what: what.to_owned(),
        object,
        outcome: Outcome::Changed,
    };
    let done = tokio::task::spawn_blocking(move || {
        let mut fx = Effects::new();
        let mut locked = node.broker.lock_one(ShardId::CATALOG);
        let done = edit(&mut locked, &mut fx);
        let now = Millis(node.clock.now_ms());
        match done {
            Ok(()) => event.write(&mut locked, now, &mut fx),
            Err(_) => fx.clear(),
        }
        let lsn = locked.commit(now, &mut fx);
        drop(locked);
        // Whether it failed is asked below.
        let _ = node.broker.engine.wait(Need::of(lsn, Durability::Sync));
        (done, node.broker.engine.failed())
    });
    match done.await {
        Ok((Ok(()), false)) => Ok(()),
        Ok((Err(error), _)) => Err(refused(error)),
        _ => Err(storage_failed()),
    }
}

fn shown(principal: &Principal) -> Value {
    let credentials: Vec<_> = principal
        .credentials
        .iter()
        .map(|credential| credential.kind.word())
        .collect();
    let certificates: Vec<&str> = principal.certificates.iter().map(|name| &**name).collect();
    json!({
        "name": *principal.name,
        "enabled": principal.enabled,
        "superuser": principal.superuser,
        "any_password": principal.any_password,
        "restricted": principal.restriction.is_some(),
        "credentials": credentials,
        "certificates": certificates,
    })
}

async fn list(State(node): State<Arc<Node>>, _by: By) -> Response {
    let users: Vec<_> = node
        .broker
        .access
        .principals()
        .iter()
        .map(|one| shown(one))
        .collect();
    Json(json!({ "users": users })).into_response()
}

async fn show(State(node): State<Arc<Node>>, _by: By, Path(name): Path<String>) -> Answer {
    match node.broker.access.principal(&name) {
        Some(principal) => Ok(Json(shown(&principal)).into_response()),
        None => Err(refused(AccessError::Unknown(name.as_str().into()))),
    }
}

/// What a user is made of or changed to; what is not given stays.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    #[serde(default)]
    name: String,
    /// `null` or none: no password, or the one it has.
    password: Option<String>,
    /// A hash of another server instead of a password.
    hash: Option<Hash>,
    enabled: Option<bool>,
    superuser: Option<bool>,
    certificates: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hash {
    kind: String,
    value: String,
}

/// Hashing takes a while, so not on this thread.
async fn credentials(wish: &Wish) -> Result<Option<Vec<Credential>>, Wrong> {
    match (&wish.password, &wish.hash) {
        (Some(_), Some(_)) => Err(bad("give a password or a hash, not both")),
        (None, None) => Ok(None),
        (None, Some(hash)) => auth::imported(&hash.kind, &hash.value)
            .map(|one| Some(vec![one]))
            .map_err(bad),
        (Some(password), None) => {
            if password.is_empty() || password.len() > PASSWORD_MAX {
                return Err(bad(format_args!(
                    "a password has 1 to {PASSWORD_MAX} octets"
                )));
            }
            let password = password.clone();
            let made =
                tokio::task::spawn_blocking(move || auth::from_password(password.as_bytes())).await;
            match made {
                Ok(Ok(made)) => Ok(Some(made)),
                _ => Err(Wrong::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "the password cannot be hashed",
                )),
            }
        }
    }
}

fn apply(settings: &mut Settings, wish: &Wish, credentials: Option<Vec<Credential>>) {
    settings.enabled = wish.enabled.unwrap_or(settings.enabled);
    settings.superuser = wish.superuser.unwrap_or(settings.superuser);
    if let Some(credentials) = credentials {
        settings.credentials = credentials;
        settings.any_password = false;
    }
    if let Some(names) = &wish.certificates {
        settings.certificates = names.iter().map(|name| name.as_str().into()).collect();
    }
}

async fn create(State(node): State<Arc<Node>>, by: By, Json(wish): Json<Wish>) -> Answer {
    if node.auth.user() == Some(&wish.name) {
        return Err(bad("the configured user has this name already"));
    }
    // Told before the password is hashed; what counts is asked again with the catalog's lock.
    if !node.auth.required() {
        can_be_first(&wish).map_err(refused)?;
    }
    let mut settings = Settings {
        enabled: true,
        ..Settings::default()
    };
    let made = credentials(&wish).await?;
    apply(&mut settings, &wish, made);
    let (name, of) = (wish.name.clone(), Arc::clone(&node));
    commit(&node, &by, "add user", name.clone(), move |locked, fx| {
        if of.auth.required() {
            return access::create(locked, &wish.name, settings, fx);
        }
        can_be_first(&wish)?;
        // Redis' ACL may have made `default`: as everybody is who does not log in.
        access::create_first(locked, &wish.name, settings, fx)
    })
    .await?;
    tracing::info!(user = %name.escape_debug(), by = by.name(), "user added");
    tell(&node, &by, "user.created", vec![("name", name.clone())]);
    Ok((StatusCode::CREATED, Json(json!({ "name": name }))).into_response())
}

/// The first user makes logins required: it must be able to undo that.
fn can_be_first(wish: &Wish) -> Result<(), AccessError> {
    let why = if wish.superuser != Some(true) {
        "the first user ends the open access to this server, so it must be a superuser"
    } else if wish.enabled == Some(false) {
        "the first user ends the open access to this server, so it must be enabled"
    } else if wish.password.is_none() && wish.hash.is_none() {
        "the first user needs a password"
    } else {
        return Ok(());
    };
    Err(AccessError::First(why))
}

async fn change(
    State(node): State<Arc<Node>>,
    by: By,
    Path(name): Path<String>,
    Json(wish): Json<Wish>,
) -> Answer {
    if !wish.name.is_empty() && wish.name != name {
        return Err(bad("a user cannot be renamed"));
    }
    let made = credentials(&wish).await?;
    let (changed, of) = (name.clone(), Arc::clone(&node));
    commit(
        &node,
        &by,
        "change user",
        name.clone(),
        move |locked, fx| {
            if wish.enabled == Some(false) {
                not_the_last(&of, &changed)?;
            }
            access::update(
                locked,
                &changed,
                |_, settings| apply(settings, &wish, made),
                fx,
            )
        },
    )
    .await?;
    tracing::info!(user = %name.escape_debug(), by = by.name(), "user changed");
    Ok(Json(json!({ "name": name })).into_response())
}

/// A Redis ACL file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AclFile {
    text: String,
}

/// Makes the users of the file with all that it says of them.
async fn import_acl(State(node): State<Arc<Node>>, by: By, Json(file): Json<AclFile>) -> Answer {
    let done = tokio::task::spawn_blocking(move || {
        let now = Millis(node.clock.now_ms());
        let done = file::import(&node, &by.0.who, by.0.from, now, &file.text);
        if let Ok(imported) = &done {
            // Whether it failed is asked below.
            let need = Need::of(imported.lsn, Durability::Sync);
            let _ = node.broker.engine.wait(need);
        }
        (done, node.broker.engine.failed())
    });
    match done.await {
        Ok((Ok(done), false)) => {
            let said = json!({ "added": done.added, "skipped": done.skipped });
            Ok((StatusCode::CREATED, Json(said)).into_response())
        }
        Ok((Err(why), _)) => Err(bad(why)),
        _ => Err(storage_failed()),
    }
}

fn storage_failed() -> Wrong {
    Wrong::new(StatusCode::INTERNAL_SERVER_ERROR, "the storage failed")
}

/// Without anybody who can log in, other machines must not reach the server: see [`RunError::Open`](crate::node::RunError).
fn not_the_last(node: &Node, name: &str) -> Result<(), AccessError> {
    if node.config.open_address().is_some() && node.auth.depends_on(name) {
        return Err(AccessError::Last(name.into()));
    }
    Ok(())
}

async fn remove(State(node): State<Arc<Node>>, by: By, Path(name): Path<String>) -> Answer {
    let (removed, of) = (name.clone(), Arc::clone(&node));
    commit(
        &node,
        &by,
        "remove user",
        name.clone(),
        move |locked, fx| {
            not_the_last(&of, &removed)?;
            access::remove(locked, &removed, fx)
        },
    )
    .await?;
    tracing::info!(user = %name.escape_debug(), by = by.name(), "user removed");
    tell(&node, &by, "user.deleted", vec![("name", name.clone())]);
    Ok(Json(json!({ "name": name })).into_response())
}

/// A grant as JSON says it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    user: String,
    #[serde(default = "default_namespace")]
    namespace: String,
    kind: String,
    /// `glob` when nothing is said, since a name without `*` is a literal then.
    #[serde(default)]
    pattern_kind: Option<String>,
    pattern: String,
    verbs: Vec<String>,
    #[serde(default)]
    deny: bool,
}

fn default_namespace() -> String {
    "default".to_owned()
}

impl Said {
    fn read(&self) -> Result<Grant, Wrong> {
        let scope = Scope::parse(&self.namespace)
            .ok_or_else(|| bad("a namespace is default, db1, db2, … or *"))?;
        let kinds = || Kind::ALL.map(|(_, word)| word).join(", ");
        let kind = Kind::parse(&self.kind)
            .ok_or_else(|| bad(format_args!("a kind is one of {}", kinds())))?;
        let text = self.pattern.as_bytes();
        let pattern = match self.pattern_kind.as_deref() {
            None | Some("glob") => Pattern::glob(text),
            Some("literal") => Pattern::literal(text),
            Some("prefix") => Pattern::prefix(text),
            Some(_) => return Err(bad("a pattern_kind is glob, literal or prefix")),
        };
        let pattern = pattern.ok_or_else(|| {
            bad(format_args!(
                "a pattern has at most {} octets",
                access::PATTERN_MAX
            ))
        })?;
        let mut verbs = Verbs::NONE;
        for word in &self.verbs {
            let verb = Verbs::parse(word).ok_or_else(|| {
                let all = Verbs::ALL.words().collect::<Vec<_>>().join(", ");
                bad(format_args!("a verb is one of {all}, all"))
            })?;
            verbs = verbs.and(verb);
        }
        Ok(Grant {
            principal: self.user.as_str().into(),
            scope,
            kind,
            pattern,
            verbs,
            deny: self.deny,
        })
    }
}

fn said(grant: &Grant) -> Value {
    json!({
        "user": *grant.principal,
        "namespace": grant.scope.to_string(),
        "kind": grant.kind.word(),
        "pattern_kind": grant.pattern.word(),
        "pattern": String::from_utf8_lossy(grant.pattern.text()),
        "verbs": grant.verbs.words().collect::<Vec<_>>(),
        "deny": grant.deny,
    })
}

#[derive(Debug, Deserialize)]
struct Whose {
    user: Option<String>,
}

async fn grants(State(node): State<Arc<Node>>, _by: By, Query(whose): Query<Whose>) -> Response {
    let grants = node.broker.access.grants(whose.user.as_deref());
    let grants: Vec<_> = grants.iter().map(said).collect();
    Json(json!({ "grants": grants })).into_response()
}

async fn grant(State(node): State<Arc<Node>>, by: By, Json(wish): Json<Said>) -> Answer {
    let answer = edit_grant(&node, &by, "add grant", &wish, access::grant).await?;
    tell_grant(&node, &by, "permission.created", &wish);
    tracing::info!(grant = %answer, by = by.name(), "grant added");
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

async fn revoke(State(node): State<Arc<Node>>, by: By, Json(wish): Json<Said>) -> Answer {
    let answer = edit_grant(&node, &by, "remove grant", &wish, access::revoke).await?;
    tell_grant(&node, &by, "permission.deleted", &wish);
    tracing::info!(grant = %answer, by = by.name(), "grant taken back");
    Ok(Json(answer).into_response())
}

/// Tells AMQP clients that listen to events; taking locks is for a thread that may wait.
fn tell(node: &Arc<Node>, by: &By, key: &'static str, named: Vec<(&'static str, String)>) {
    let (node, by) = (Arc::clone(node), by.name().map(str::to_owned));
    tokio::task::spawn_blocking(move || {
        let named: Vec<(&str, &str)> = named
            .iter()
            .map(|(name, value)| (*name, &**value))
            .collect();
        crate::amqp::events::administered(&node, key, &named, by.as_deref());
    });
}

fn tell_grant(node: &Arc<Node>, by: &By, key: &'static str, grant: &Said) {
    let vhost = match &*grant.namespace {
        "default" => "/",
        other => other,
    };
    let named = [
        ("user", &*grant.user),
        ("vhost", vhost),
        ("kind", &*grant.kind),
    ];
    let named = named.map(|(name, value)| (name, value.to_owned()));
    tell(node, by, key, named.to_vec());
}

/// The grant as it was read.
async fn edit_grant(
    node: &Arc<Node>,
    by: &By,
    what: &str,
    wish: &Said,
    edit: fn(&mut Locked<'_>, Grant, &mut Effects) -> Result<(), AccessError>,
) -> Result<Value, Wrong> {
    let grant = wish.read()?;
    let answer = said(&grant);
    commit(node, by, what, answer.to_string(), move |locked, fx| {
        edit(locked, grant, fx)
    })
    .await?;
    Ok(answer)
}

/// Rows of one answer.
const AUDIT_ROWS_MAX: usize = 10_000;

#[derive(Debug, Deserialize)]
struct Which {
    #[serde(default)]
    after: u64,
    limit: Option<usize>,
}

async fn audit_rows(
    State(node): State<Arc<Node>>,
    _by: By,
    Query(which): Query<Which>,
) -> Response {
    let limit = which.limit.unwrap_or(AUDIT_ROWS_MAX).min(AUDIT_ROWS_MAX);
    read_audit(move || audit::show(&node, which.after, limit)).await
}

async fn audit_verify(State(node): State<Arc<Node>>, _by: By) -> Response {
    read_audit(move || audit::verify(&node)).await
}

async fn read_audit(
    read: impl FnOnce() -> Result<Value, storage::Error> + Send + 'static,
) -> Response {
    match tokio::task::spawn_blocking(read).await {
        Ok(Ok(value)) => Json(value).into_response(),
        _ => wrong(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the audit log cannot be read",
        ),
    }
}
