#!/bin/sh
# The postgres image runs this once, when its volume is new: Patrol's role owns Patrol's database, and is no
# superuser, so that whoever gets hold of its password stays inside.
exec psql --no-psqlrc --set=ON_ERROR_STOP=1 --username="${POSTGRES_USER:-postgres}" --dbname=postgres <<'SQL'
\set password `cat "${DATABASE_PASSWORD_FILE:-/run/secrets/database_password}"`
CREATE ROLE patrol LOGIN PASSWORD :'password';
CREATE DATABASE patrol OWNER patrol ENCODING 'UTF8' TEMPLATE template0;
REVOKE ALL ON DATABASE patrol FROM PUBLIC;
SQL
