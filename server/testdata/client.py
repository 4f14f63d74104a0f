"""Calls a running server by a client that was generated from its description.

Arguments: the address of the server, and a token of an operator. Prints what it did, a line per call; any answer that is not as it should be is an error.
"""

import sys
import time

from eventrelay_client import AuthenticatedClient, Client
from eventrelay_client.api.event_service import event_service_get_event, event_service_get_event_raw, event_service_list_events
from eventrelay_client.api.schema_service import schema_service_list_drift
from eventrelay_client.api.source_service import source_service_create_source, source_service_get_source
from eventrelay_client.models import EventrelayV1Source, EventrelayV1SourceProvider, GoogleRpcStatus

address, token = sys.argv[1:]
client = AuthenticatedClient(base_url=address, token=token)

created = source_service_create_source.sync(
    client=client,
    source_id="shop",
    body=EventrelayV1Source(provider=EventrelayV1SourceProvider.PROVIDER_META, display_name="Shop", app_secrets=["MARKER-app-secret"], verify_token="MARKER-verify"),
)
assert isinstance(created, EventrelayV1Source), created
print("created", created.name, created.webhook_path)

got = source_service_get_source.sync("shop", client=client)
assert isinstance(got, EventrelayV1Source) and got.display_name == "Shop" and got.etag == created.etag, got
assert not got.app_secrets and not got.verify_token, "a secret came back"
print("got", got.name, got.origin)

missing = source_service_get_source.sync_detailed("none", client=client)
assert missing.status_code == 404 and isinstance(missing.parsed, GoogleRpcStatus), missing
assert missing.parsed.details[0].additional_properties["reason"] == "SOURCE_NOT_FOUND", missing.parsed
print("refused", missing.status_code.value, missing.parsed.details[0].additional_properties["reason"])

refused = source_service_get_source.sync_detailed("shop", client=Client(base_url=address))
assert refused.status_code == 401 and refused.parsed.details[0].additional_properties["reason"] == "TOKEN_MISSING", refused
print("refused", refused.status_code.value, refused.parsed.details[0].additional_properties["reason"])

for _ in range(600):
    listed = event_service_list_events.sync(client=client, filter_='event.source == "sources/dev"')
    if listed.events:
        break
    time.sleep(0.05)
event = listed.events[0]
assert event.type_ == "meta.whatsapp_business_account.messages.message" and event.message.text.body == "by a generated client", event
print("listed", event.type_, event.message.text.body, event.received_at.isoformat())

same = event_service_get_event.sync(event.id, client=client)
assert same == event, same
raw = event_service_get_event_raw.sync_detailed(event.id, client=client)
assert raw.status_code == 200 and raw.parsed["value"]["messages"][0]["id"] == "wamid.generated", raw
print("raw", len(raw.content), "bytes")

drift = schema_service_list_drift.sync(client=client)
assert not isinstance(drift, GoogleRpcStatus), drift
print("drift", len(drift.drift or []))
