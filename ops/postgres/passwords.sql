-- Run after roles.sql when docker-compose.yml sets up a new volume: the passwords are in files, and in no other place.
\set ON_ERROR_STOP on
\set owner `cat /run/secrets/postgres_owner_password`
\set app `cat /run/secrets/postgres_app_password`
-- Of a file that cannot be read psql makes an empty text and goes on. With an empty password nobody could log in.
SELECT CASE WHEN '' IN (:'owner', :'app') THEN 'the secret postgres_owner_password or postgres_app_password is empty' ELSE 'true' END::boolean AS known \gset
ALTER ROLE promptmill_owner PASSWORD :'owner';
ALTER ROLE promptmill_app PASSWORD :'app';
