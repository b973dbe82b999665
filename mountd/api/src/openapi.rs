//! The OpenAPI document of the API, made from the routes and the types themselves.
//!
//! One line here a route; a test holds the lines against [`routes::ALL`], so that none is forgotten.

use hyper::Method;
use utoipa::openapi::path::{OperationBuilder, ParameterBuilder, ParameterIn, PathsBuilder};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ComponentsBuilder, Schema};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ContentBuilder, HttpMethod, InfoBuilder, ObjectBuilder, OpenApi, OpenApiBuilder, PathItem, Ref,
    RefOr, Required, ResponseBuilder, Type,
};
use utoipa::{IntoParams, ToSchema};

use crate::{
    AcceptLoss, AcceptedLoss, AccessToken, AddPool, ApiError, Attach, Attachment, ChangeLabels,
    ChangeVolume, Check, CreateAccessToken, CreateToken, CreateVolume, CreatedVolume, Events,
    EventsQuery, ForceQuery, JoinCluster, Membership, Mount, MountVolume, Mounted, NewAccessToken,
    Node, NodeDetail, Pool, ResizeVolume, Resync, Route, SetVoters, SharedClient, Status, Task,
    Token, UnmountQuery, Unmounted, Volume, VolumeDetail, routes,
};

/// The document being made.
#[derive(Default)]
struct Document {
    paths: PathsBuilder,
    schemas: Vec<(String, RefOr<Schema>)>,
}

/// One operation: its parts are added in turn.
struct Operation {
    route: &'static Route,
    builder: OperationBuilder,
}

impl Document {
    fn operation(&mut self, route: &'static Route, summary: &str) -> Operation {
        let right = format!("Over the network it needs the right to {}.", route.rights.explained());
        let mut builder = OperationBuilder::new()
            .summary(Some(summary))
            .description(Some(right))
            .security(SecurityRequirement::new::<_, _, &str>("token", []));
        for part in route.path.split('/').filter_map(|part| part.strip_prefix('{')) {
            let name = part.trim_end_matches('}');
            builder = builder.parameter(
                ParameterBuilder::new()
                    .name(name)
                    .parameter_in(ParameterIn::Path)
                    .required(Required::True)
                    .schema(Some(ObjectBuilder::new().schema_type(Type::String))),
            );
        }
        let error = content_of(self.reference::<ApiError>());
        let failed = ResponseBuilder::new().description("what went wrong, and what to do");
        Operation {
            route,
            builder: builder.response("default", failed.content("application/json", error)),
        }
    }

    /// Adds a type and all it is made of; gives a reference to it.
    fn reference<T: ToSchema>(&mut self) -> RefOr<Schema> {
        T::schemas(&mut self.schemas);
        let name = T::name().into_owned();
        self.schemas.push((name.clone(), T::schema()));
        RefOr::Ref(Ref::from_schema_name(name))
    }

    /// A route that is asked with a body (or none) and answers with a type.
    fn add<Asked: Part, Answer: Part>(&mut self, route: &'static Route, summary: &str) {
        let mut operation = self.operation(route, summary);
        if let Some(schema) = Asked::schema(self) {
            let body = RequestBodyBuilder::new()
                .content("application/json", content_of(schema))
                .required(Some(Required::True));
            operation.builder = operation.builder.request_body(Some(body.build()));
        }
        self.finish::<Answer>(operation);
    }

    /// A route that is asked with query parameters and answers with a type.
    fn query<Asked: IntoParams, Answer: Part>(&mut self, route: &'static Route, summary: &str) {
        let mut operation = self.operation(route, summary);
        for parameter in Asked::into_params(|| Some(ParameterIn::Query)) {
            operation.builder = operation.builder.parameter(parameter);
        }
        self.finish::<Answer>(operation);
    }

    fn finish<Answer: Part>(&mut self, operation: Operation) {
        let (code, response) = match Answer::schema(self) {
            Some(schema) => (
                "200",
                ResponseBuilder::new()
                    .description("done")
                    .content("application/json", content_of(schema)),
            ),
            None => ("204", ResponseBuilder::new().description("done")),
        };
        let item = PathItem::new(
            http_method(&operation.route.method),
            operation.builder.response(code, response),
        );
        let paths = std::mem::take(&mut self.paths);
        self.paths = paths.path(operation.route.path, item);
    }
}

/// What can be a body: nothing, a type, a list of a type, a text.
trait Part {
    fn schema(document: &mut Document) -> Option<RefOr<Schema>>;
}

/// No body.
struct Nothing;
/// A list.
struct ListOf<T>(std::marker::PhantomData<T>);
/// One object.
struct One<T>(std::marker::PhantomData<T>);

impl Part for Nothing {
    fn schema(_document: &mut Document) -> Option<RefOr<Schema>> {
        None
    }
}

impl<T: ToSchema> Part for One<T> {
    fn schema(document: &mut Document) -> Option<RefOr<Schema>> {
        Some(document.reference::<T>())
    }
}

impl<T: ToSchema> Part for ListOf<T> {
    fn schema(document: &mut Document) -> Option<RefOr<Schema>> {
        let items = document.reference::<T>();
        Some(utoipa::openapi::ArrayBuilder::new().items(items).build().into())
    }
}

fn content_of(schema: RefOr<Schema>) -> utoipa::openapi::Content {
    ContentBuilder::new().schema(Some(schema)).build()
}

fn http_method(method: &Method) -> HttpMethod {
    match *method {
        Method::POST => HttpMethod::Post,
        Method::PUT => HttpMethod::Put,
        Method::PATCH => HttpMethod::Patch,
        Method::DELETE => HttpMethod::Delete,
        _ => HttpMethod::Get,
    }
}

/// The document, as `GET /v1/openapi.json` answers it.
#[must_use]
pub fn document() -> OpenApi {
    let mut api = Document::default();
    cluster(&mut api);
    volumes(&mut api);
    devices(&mut api);
    api.query::<EventsQuery, One<Events>>(&routes::EVENTS, "Events of this node");
    api.add::<Nothing, ListOf<Task>>(&routes::TASKS, "The tasks of this node");
    api.add::<Nothing, One<Task>>(&routes::TASK, "One task");
    api.add::<Nothing, One<String>>(&routes::METRICS, "Prometheus metrics, as text");
    api.add::<Nothing, One<String>>(&routes::OPENAPI, "This document");
    let info = InfoBuilder::new()
        .title("Mooring")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("Replicated volumes for containers: the API of a node's daemon."));
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer);
    let components = ComponentsBuilder::new()
        .schemas_from_iter(api.schemas)
        .security_scheme("token", SecurityScheme::Http(bearer.build()))
        .build();
    OpenApiBuilder::new().info(info).paths(api.paths).components(Some(components)).build()
}

fn cluster(api: &mut Document) {
    api.add::<Nothing, One<Status>>(&routes::STATUS, "Health, why, what to do");
    api.add::<Nothing, One<Membership>>(&routes::CLUSTER, "This node's membership");
    api.add::<Nothing, One<Membership>>(&routes::CLUSTER_CREATE, "Make a cluster of this node");
    api.add::<One<CreateToken>, One<Token>>(
        &routes::CLUSTER_TOKEN,
        "Make a token to join with; each request makes one more",
    );
    api.add::<One<JoinCluster>, One<Membership>>(&routes::CLUSTER_JOIN, "Join a cluster");
    api.add::<One<SetVoters>, One<Membership>>(&routes::CLUSTER_VOTERS, "How many nodes vote");
    api.add::<Nothing, ListOf<AccessToken>>(&routes::TOKENS, "The tokens of this API");
    api.add::<One<CreateAccessToken>, One<NewAccessToken>>(
        &routes::TOKEN_CREATE,
        "Make a token for this API; its secret is shown once",
    );
    api.add::<Nothing, Nothing>(&routes::TOKEN_REVOKE, "End a token of this API");
    api.add::<Nothing, ListOf<Node>>(&routes::NODES, "Every node");
    api.add::<Nothing, One<NodeDetail>>(&routes::NODE, "One node");
    api.add::<One<ChangeLabels>, One<Node>>(&routes::NODE_CHANGE, "Change labels");
    api.add::<Nothing, One<Task>>(&routes::NODE_DRAIN, "Move every replica off a node");
    api.add::<Nothing, Nothing>(&routes::NODE_UNDRAIN, "End a drain");
    api.query::<ForceQuery, Nothing>(&routes::NODE_REMOVE, "Remove a node");
    api.add::<Nothing, ListOf<Pool>>(&routes::POOLS, "Every pool");
    api.add::<One<AddPool>, One<Pool>>(&routes::POOL_ADD, "Add a pool to this node");
    api.add::<Nothing, One<Pool>>(&routes::POOL, "One pool");
    api.query::<ForceQuery, One<Task>>(&routes::POOL_REMOVE, "Empty a pool, then remove it");
}

fn volumes(api: &mut Document) {
    api.add::<Nothing, ListOf<Volume>>(&routes::VOLUMES, "Every volume");
    api.add::<One<CreateVolume>, One<CreatedVolume>>(&routes::VOLUME_CREATE, "Create a volume");
    api.add::<Nothing, One<VolumeDetail>>(&routes::VOLUME, "One volume with its slices");
    api.add::<One<ChangeVolume>, One<Volume>>(&routes::VOLUME_CHANGE, "Change a volume's policy");
    api.query::<ForceQuery, Nothing>(&routes::VOLUME_REMOVE, "Remove a volume and its data");
    api.add::<One<ResizeVolume>, One<Volume>>(&routes::VOLUME_RESIZE, "Grow a volume");
    api.add::<One<AcceptLoss>, One<AcceptedLoss>>(
        &routes::VOLUME_ACCEPT_LOSS,
        "Make an older replica the history",
    );
    api.add::<Nothing, ListOf<Resync>>(&routes::VOLUME_RESYNC, "The joins that are running");
    api.add::<Nothing, ListOf<SharedClient>>(
        &routes::VOLUME_CLIENTS,
        "Who has a shared volume mounted, and what each holds",
    );
    api.add::<Nothing, Nothing>(&routes::VOLUME_EVICT, "End a mount of a shared volume");
    api.add::<Nothing, One<Check>>(
        &routes::VOLUME_CHECK,
        "Check the structure of a shared volume, in use or not",
    );
}

fn devices(api: &mut Document) {
    api.add::<One<Attach>, One<Attachment>>(&routes::VOLUME_ATTACH, "Attach to this node");
    api.query::<ForceQuery, Nothing>(&routes::VOLUME_DETACH, "Detach from this node");
    api.add::<Nothing, ListOf<Mount>>(&routes::MOUNTS, "The mounts of this node");
    api.add::<One<MountVolume>, One<Mounted>>(&routes::MOUNT, "Mount a volume on this node");
    api.query::<UnmountQuery, ListOf<Unmounted>>(&routes::UNMOUNT, "Unmount");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_in_the_document_with_its_types() {
        let json = serde_json::to_value(document()).unwrap();
        for route in routes::ALL {
            let method = route.method.as_str().to_lowercase();
            let operation = &json["paths"][route.path][method.as_str()];
            assert!(operation.is_object(), "{} {}", route.method, route.path);
        }
        let text = json.to_string();
        for reference in text.split("#/components/schemas/").skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(json["components"]["schemas"][name].is_object(), "{name} is referred to only");
        }
    }
}
