#!/usr/bin/env python3
"""Whether Kubernetes files say something sensible: check.py FILE…

Against the schemas of the API (kubernetes-validate, which brings them along, so no cluster and no network is
needed), and, since a schema knows nothing of that, whether names lead somewhere: selectors to labels, mounts to
volumes, claims to claims, ports to ports. Says what it has checked.
"""

import sys

import kubernetes_validate
import yaml


def pod_template_mistakes(document, claims):
    spec = document["spec"]
    labels = spec["template"]["metadata"]["labels"]
    if not spec["selector"]["matchLabels"].items() <= labels.items():
        yield "its selector does not fit the labels of its pods"
    pod = spec["template"]["spec"]
    volumes = {volume["name"] for volume in pod.get("volumes", [])}
    for volume in pod.get("volumes", []):
        claim = volume.get("persistentVolumeClaim", {}).get("claimName")
        if claim is not None and claim not in claims:
            yield f"nothing claims the volume {claim}"
    for container in pod.get("initContainers", []) + pod["containers"]:
        for mount in container.get("volumeMounts", []):
            if mount["name"] not in volumes:
                yield f"{container['name']} mounts {mount['name']}, which is no volume"
        ports = {port["name"] for port in container.get("ports", [])}
        for probe in ("readinessProbe", "livenessProbe"):
            port = container.get(probe, {}).get("httpGet", {}).get("port")
            if port is not None and port not in ports:
                yield f"{probe} of {container['name']} asks at {port}, which is no port of it"


def service_mistakes(document, documents):
    selector = document["spec"]["selector"].items()
    pods = [other["spec"]["template"] for other in documents if "template" in other["spec"]]
    chosen = [pod for pod in pods if selector <= pod["metadata"]["labels"].items()]
    if not chosen:
        yield "it selects no pod"
    for pod in chosen:
        named = {port["name"] for container in pod["spec"]["containers"] for port in container.get("ports", [])}
        for port in document["spec"]["ports"]:
            if port["targetPort"] not in named:
                yield f"it leads to the port {port['targetPort']}, which nobody has"


def mistakes(documents):
    claims = {document["metadata"]["name"] for document in documents if document["kind"] == "PersistentVolumeClaim"}
    for document in documents:
        what = f"{document['kind']} {document['metadata']['name']}"
        try:
            kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"{what}: {error.message} at {'.'.join(str(step) for step in error.path)}"
            continue
        if "template" in document["spec"]:
            yield from (f"{what}: {mistake}" for mistake in pod_template_mistakes(document, claims))
        if document["kind"] == "Service":
            yield from (f"{what}: {mistake}" for mistake in service_mistakes(document, documents))


def main():
    failed = False
    for path in sys.argv[1:]:
        with open(path, encoding="utf-8") as file:
            documents = list(yaml.safe_load_all(file))
        found = list(mistakes(documents))
        for mistake in found:
            print(f"{path}: {mistake}", file=sys.stderr)
        failed |= bool(found) or not documents
        print(f"{path}: {len(documents)} objects against the schemas of Kubernetes {kubernetes_validate.latest_version()}, and where their names lead")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
