-- Three roles of a Postgres for Promptmill, with the least each needs. Run once, as a superuser, in an empty database:
--
--   createdb promptmill && psql --dbname promptmill --file ops/postgres/roles.sql
--   \password promptmill_owner      (and of the other two; no password stands in this file)
--
-- promptmill_owner   owns the tables; only `promptmill migrate` signs in as it
-- promptmill_app     workers, beat, the dashboard and the commands: reads and writes rows, changes no table
-- promptmill_reader  looks: reports, Grafana, people with psql; it does not see prompts and answers

CREATE ROLE promptmill_owner LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION;
CREATE ROLE promptmill_app LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION;
CREATE ROLE promptmill_reader LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION;

DO $$ BEGIN
  EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
  EXECUTE format('GRANT CONNECT ON DATABASE %I TO promptmill_owner, promptmill_app, promptmill_reader', current_database());
  EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO promptmill_owner', current_database());  -- migrations count in one
END $$;

REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO promptmill_owner;
GRANT USAGE ON SCHEMA public TO promptmill_app, promptmill_reader;

-- Tables of later versions too: what the owner makes, the application may use.
ALTER DEFAULT PRIVILEGES FOR ROLE promptmill_owner IN SCHEMA public
  GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO promptmill_app;
ALTER DEFAULT PRIVILEGES FOR ROLE promptmill_owner IN SCHEMA public
  GRANT USAGE, SELECT ON SEQUENCES TO promptmill_app;

ALTER ROLE promptmill_reader SET default_transaction_read_only = on;
ALTER ROLE promptmill_reader SET statement_timeout = '60s';

-- The reader is given tables by name, once they are there, and again after an upgrade that brings new ones:
--
--   psql --dbname promptmill --username promptmill_owner --file ops/postgres/reader.sql
