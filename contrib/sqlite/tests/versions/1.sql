PRAGMA application_id = 1836151924;
PRAGMA user_version = 1;
BEGIN TRANSACTION;
CREATE TABLE messages (
    id INTEGER PRIMARY KEY,
    topic TEXT NOT NULL,
    payload BLOB NOT NULL,
    qos INTEGER NOT NULL,
    retain INTEGER NOT NULL,
    payload_format_indicator INTEGER,
    content_type TEXT,
    response_topic TEXT,
    correlation_data BLOB,
    user_properties TEXT,  -- JSON; NULL: the message has no properties at all
    publisher TEXT NOT NULL,
    username TEXT,
    expires_at REAL,
    origin TEXT NOT NULL,
    node TEXT NOT NULL
);
INSERT INTO "messages" VALUES(11,'a/1',X'65696E20477275C39F',2,0,1,'text/plain','answers/ann',X'00FF','[["a", "1"], ["a", "ü"]]','pub','peter',1900000000.0,'client','here');
INSERT INTO "messages" VALUES(12,'a/2',X'',1,1,NULL,NULL,NULL,NULL,NULL,'',NULL,NULL,'client','');
INSERT INTO "messages" VALUES(14,'b/1',X'000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F202122232425262728292A2B2C2D2E2F303132333435363738393A3B3C3D3E3F404142434445464748494A4B4C4D4E4F505152535455565758595A5B5C5D5E5F606162636465666768696A6B6C6D6E6F707172737475767778797A7B7C7D7E7F808182838485868788898A8B8C8D8E8F909192939495969798999A9B9C9D9E9FA0A1A2A3A4A5A6A7A8A9AAABACADAEAFB0B1B2B3B4B5B6B7B8B9BABBBCBDBEBFC0C1C2C3C4C5C6C7C8C9CACBCCCDCECFD0D1D2D3D4D5D6D7D8D9DADBDCDDDEDFE0E1E2E3E4E5E6E7E8E9EAEBECEDEEEFF0F1F2F3F4F5F6F7F8F9FAFBFCFDFEFF',1,0,NULL,NULL,NULL,NULL,NULL,'pub',NULL,NULL,'client','');
CREATE TABLE meta (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    commits INTEGER NOT NULL,  -- the number of the last commit, by which its fate can be told
    refused INTEGER NOT NULL  -- how many have failed
);
INSERT INTO "meta" VALUES(1,1,0);
CREATE TABLE queue (
    session INTEGER NOT NULL REFERENCES sessions ON DELETE CASCADE,
    sequence INTEGER NOT NULL,
    message INTEGER NOT NULL REFERENCES messages,
    qos INTEGER NOT NULL,
    retain INTEGER NOT NULL,
    identifiers TEXT,  -- JSON; NULL: none
    packet_id INTEGER NOT NULL,  -- 0: never sent
    shared TEXT NOT NULL,
    released INTEGER NOT NULL,
    PRIMARY KEY (session, sequence)
) WITHOUT ROWID;
INSERT INTO "queue" VALUES(1,1,11,2,0,'[7]',5,'',1);
INSERT INTO "queue" VALUES(1,2,12,1,1,'[7]',6,'',0);
INSERT INTO "queue" VALUES(1,4,14,1,0,NULL,0,'$share/g/b/#',0);
INSERT INTO "queue" VALUES(2,1,11,1,0,NULL,0,'',0);
INSERT INTO "queue" VALUES(2,2,12,1,0,NULL,0,'',0);
CREATE TABLE received (
    session INTEGER NOT NULL REFERENCES sessions ON DELETE CASCADE,
    packet_id INTEGER NOT NULL,
    PRIMARY KEY (session, packet_id)
) WITHOUT ROWID;
INSERT INTO "received" VALUES(1,9);
INSERT INTO "received" VALUES(1,65535);
CREATE TABLE retained (
    topic TEXT PRIMARY KEY,
    payload BLOB NOT NULL,
    qos INTEGER NOT NULL,
    payload_format_indicator INTEGER,
    content_type TEXT,
    response_topic TEXT,
    correlation_data BLOB,
    user_properties TEXT,
    publisher TEXT NOT NULL,
    username TEXT,
    expires_at REAL,
    origin TEXT NOT NULL,
    node TEXT NOT NULL
) WITHOUT ROWID;
INSERT INTO "retained" VALUES('$x',X'30',0,NULL,NULL,NULL,NULL,NULL,'',NULL,NULL,'client','');
INSERT INTO "retained" VALUES('a/1',X'65696E20477275C39F',2,1,'text/plain','answers/ann',X'00FF','[["a", "1"], ["a", "ü"]]','pub','peter',1900000000.0,'client','here');
CREATE TABLE sessions (
    id INTEGER PRIMARY KEY,
    client_id TEXT NOT NULL UNIQUE,
    username TEXT,
    version INTEGER NOT NULL,
    expiry_interval INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    created_at REAL NOT NULL,
    credentials_expire_at REAL,
    closed_at REAL  -- NULL while it has a connection
);
INSERT INTO "sessions" VALUES(1,'ann','anna',5,3600,3,1700000000.0,1800000000.0,NULL);
INSERT INTO "sessions" VALUES(2,'bob',NULL,4,4294967295,1,1700000001.0,NULL,1700000002.5);
CREATE TABLE subscriptions (
    session INTEGER NOT NULL REFERENCES sessions ON DELETE CASCADE,
    topic_filter TEXT NOT NULL,
    qos INTEGER NOT NULL,
    no_local INTEGER NOT NULL,
    retain_as_published INTEGER NOT NULL,
    retain_handling INTEGER NOT NULL,
    identifier INTEGER NOT NULL,
    sent TEXT NOT NULL,
    PRIMARY KEY (session, topic_filter)
) WITHOUT ROWID;
INSERT INTO "subscriptions" VALUES(1,'$share/g/b/#',1,0,0,0,0,'$share/g/x/#');
INSERT INTO "subscriptions" VALUES(1,'a/+',2,1,1,2,7,'');
INSERT INTO "subscriptions" VALUES(2,'a/#',1,0,0,0,0,'');
CREATE TABLE wills (
    client_id TEXT PRIMARY KEY,
    username TEXT,
    topic TEXT NOT NULL,
    payload BLOB NOT NULL,
    qos INTEGER NOT NULL,
    retain INTEGER NOT NULL,
    delay_interval INTEGER NOT NULL,
    message_expiry_interval INTEGER,
    payload_format_indicator INTEGER,
    content_type TEXT,
    response_topic TEXT,
    correlation_data BLOB,
    user_properties TEXT,
    due REAL  -- NULL while the connection lives
) WITHOUT ROWID;
INSERT INTO "wills" VALUES('ann','anna','wills/ann',X'676F6E65',1,1,30,60,1,'text/plain','answers/ann',X'00FF','[["a", "1"], ["a", "ü"]]',NULL);
INSERT INTO "wills" VALUES('eve',NULL,'wills/eve',X'',0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,1700000040.0);
CREATE INDEX queue_message ON queue (message);
COMMIT;
