-- Run after roles.sql when docker-compose.yml sets up a new volume: the passwords are in files, and in no other place.
\set ON_ERROR_STOP on
\set owner `cat /run/secrets/postgres_owner_password`
\set app `cat /run/secrets/postgres_app_password`
ALTER ROLE promptmill_owner PASSWORD :'owner';
ALTER ROLE promptmill_app PASSWORD :'app';
