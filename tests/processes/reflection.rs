//! gRPC reflection and health, as general tools (grpcurl, grpc_health_probe) use them.

use std::collections::BTreeSet;

use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::harness::{Cluster, channel};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_describes_its_services_and_its_health() {
    let mut cluster = Cluster::prepare(1, 4);
    cluster.launch(0);
    cluster.until_serving().await;
    let address = cluster.nodes[0].address.clone();

    let MessageResponse::ListServicesResponse(list) =
        ask(&address, MessageRequest::ListServices(String::new())).await
    else {
        panic!("a list of services");
    };
    let services: BTreeSet<_> = list.service.into_iter().map(|service| service.name).collect();
    for expected in ["ClusterService", "PeerService", "ReadService"] {
        assert!(services.contains(&format!("kotoba.cluster.v1.{expected}")), "{services:?}");
    }
    assert!(services.contains("grpc.health.v1.Health"), "{services:?}");

    let symbol = "kotoba.cluster.v1.ClusterService.ExecuteOperation".to_owned();
    let MessageResponse::FileDescriptorResponse(files) =
        ask(&address, MessageRequest::FileContainingSymbol(symbol)).await
    else {
        panic!("the file that describes a call");
    };
    let described = |text: &str| {
        files
            .file_descriptor_proto
            .iter()
            .any(|file| file.windows(text.len()).any(|at| at == text.as_bytes()))
    };
    assert!(described("ClientRequest") && described("ExecuteOperation"));

    for service in ["", "kotoba.cluster.v1.ClusterService"] {
        let request = HealthCheckRequest { service: service.into() };
        let answer = HealthClient::new(channel(&address)).check(request).await.expect("an answer");
        assert_eq!(answer.into_inner().status(), ServingStatus::Serving, "{service:?}");
    }
    cluster.finish();
}

async fn ask(address: &str, question: MessageRequest) -> MessageResponse {
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(question) };
    let mut client = ServerReflectionClient::new(channel(address));
    let answers = client.server_reflection_info(tokio_stream::iter([request])).await;
    let answer = answers.expect("an answer").into_inner().message().await.expect("an answer");
    answer.and_then(|answer| answer.message_response).expect("an answer")
}
