"""TLS for the MQTT broker mqtrio: `mqtts://` and `wss://` listeners, and client certificates."""

from mqtrio_tls.client_certificates import ClientCertificates as ClientCertificates
from mqtrio_tls.client_certificates import (
    ClientCertificatesSettings as ClientCertificatesSettings,
)
from mqtrio_tls.contexts import client_context as client_context
from mqtrio_tls.contexts import server_context as server_context
from mqtrio_tls.layer import TlsLayer as TlsLayer
from mqtrio_tls.plugin import Tls as Tls
from mqtrio_tls.settings import Certificate as Certificate
from mqtrio_tls.settings import TlsClient as TlsClient
from mqtrio_tls.settings import TlsListener as TlsListener
