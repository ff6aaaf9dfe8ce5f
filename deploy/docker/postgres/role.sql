-- The user of the service, which owns the database.
\set password `cat /run/store/password`
CREATE ROLE usage_proxy LOGIN PASSWORD :'password';
ALTER DATABASE usage OWNER TO usage_proxy;
