# docs/scaling.md: what it says of an application's transaction beside the
# shard's, and of a failover, with the statements that it has.

use strict;
use warnings FATAL => 'all';

use Cwd qw(abs_path);
use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SessionManagerTest;
use Test::More;

my $page = slurp_file(abs_path("$FindBin::RealBin/../../docs/scaling.md"));
my ($example) = $page =~ /(-- sessions: 1\..*?)```/s or die 'no example';
my %step;
while ($example =~ /^-- (sessions|application): (\d)\..*\n([^-][^;]*;)/mg)
{
	$step{$2} = { where => $1, sql => $3 };
}
is_deeply(
	[ map { $step{$_}{where} } 1 .. 3 ],
	[qw(sessions application sessions)],
	'the example has three steps');

my $sessions = new_node('sessions', streaming => 1);
my $application = PostgreSQL::Test::Cluster->new('application');
$application->init;
$application->start;
$application->safe_psql('postgres',
	"CREATE TABLE account (user_id text PRIMARY KEY, role text NOT NULL)");

sub on_sessions
{
	return $sessions->safe_psql('postgres', $_[0]);
}

# As an application logs in: the rights that it sees go into the session.
sub log_in
{
	my $role = $application->safe_psql('postgres',
		"SELECT role FROM account WHERE user_id = 'ada'");
	return create_session($sessions, 'ada', "'{\"role\": \"$role\"}'");
}


# Run some of the steps, with a login before the application commits.
sub demote
{
	my (%run) = @_;
	on_sessions("SELECT session_invalidate_all('ada')");
	$application->safe_psql('postgres',
		"INSERT INTO account VALUES ('ada', 'writer') ON CONFLICT (user_id) DO UPDATE SET role = 'writer'"
	);
	my @tokens = (log_in());
	my $transaction = connection($application);
	query($transaction, 'BEGIN');
	query($transaction, $step{2}{sql});
	on_sessions($step{1}{sql}) if $run{before};
	push @tokens, log_in() if $run{login};
	query($transaction, $run{fails} ? 'ROLLBACK' : 'COMMIT');
	on_sessions($step{3}{sql}) if $run{after};
	$transaction->quit;
	return join ' ', map {
		on_sessions(
			"SELECT coalesce(max(data ->> 'role'), 'ended') FROM session_get('$_')"
		)
	} @tokens;
}

is(demote(before => 1, after => 1, login => 1),
	'ended ended', 'revoked before and after: none has the old rights');
is(demote(before => 1, login => 1),
	'ended writer', 'only before: who logs in meanwhile keeps them');
is(demote(), 'writer',
	'only after, and the shard is not reached: all keep them');
is(demote(before => 1, fails => 1),
	'ended', 'the application rolls back: a login is needed, no more');

# Failover with asynchronous replication
$sessions->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($sessions, 'base', has_streaming => 1);
$standby->start;
my ($revoked, $rotated) =
  map { create_session($sessions, $_) } ('revoked', 'rotated');
$sessions->wait_for_catchup($standby, 'replay');
# the network between them fails
$standby->append_conf('postgresql.conf', "primary_conninfo = ''\n");
$standby->reload;
ok( wait_until(
		sub {
			$standby->safe_psql('postgres',
				'SELECT count(*) FROM pg_stat_wal_receiver') == 0;
		}),
	'the standby receives nothing more');
my $late = create_session($sessions, 'late');
on_sessions("SELECT session_invalidate('$revoked')");
my $successor = on_sessions(
	"SELECT session_token FROM session_refresh('$rotated', rotate => true)");
$sessions->stop('immediate');
$standby->promote;
is(live($standby, $late), 0, 'a login is lost');
is(live($standby, $successor), 0, 'a new token is unknown');
is(live($standby, $revoked), 1, 'a revoked session is live again');
my ($end) =
  $page =~ /^(SELECT session_invalidate_everything\('failover'\);)$/m
  or die 'no statement';
$standby->safe_psql('postgres', $end);
is(live($standby, $revoked), 0, 'until all have been ended');

$standby->stop;
$application->stop;
done_testing();
