"""JSON Web Tokens for the MQTT broker mqtrio: who a client is, until when, and what it may do."""

from mqtrio_jwt.plugin import Jwt as Jwt
from mqtrio_jwt.settings import JwtSettings as JwtSettings
from mqtrio_jwt.settings import TopicRules as TopicRules
