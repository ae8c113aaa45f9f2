# docs/postgres_exporter.yml: its queries run, and return what it says they do.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SessionManagerTest;
use Test::More;

my $docs = "$FindBin::RealBin/../../docs";

# The query and the metrics of each namespace, by the few rules of YAML that
# the file keeps to.
sub parse
{
	my ($file) = @_;
	my (%spaces, $space, $list);
	foreach my $line (split /\n/, slurp_file($file))
	{
		if ($line =~ /^(\w+):$/)
		{
			$space = $spaces{$1} =
			  { query => '', metrics => [], usage => [] };
			$list = '';
		}
		elsif ($line =~ /^  (\w+):/)      { $list = $1; }
		elsif ($line =~ /^\s*(#|$)/)      { next; }
		elsif ($list eq 'query')          { $space->{query} .= "$line\n"; }
		elsif ($line =~ /^    - (\w+):$/) { push @{ $space->{metrics} }, $1; }
		elsif ($line =~ /^        usage: "(\w+)"$/)
		{
			push @{ $space->{usage} }, $1;
		}
		elsif ($line !~ /^        description: "[^"\\]+"$/)
		{
			die "cannot read: $line";
		}
	}
	return \%spaces;
}

my $node = new_node('exporter', preload => 'session_manager', extension => 0);
$node->safe_psql('postgres', 'CREATE SCHEMA sessions');
install_extension($node, 'postgres', 'sessions');
$node->safe_psql(
	'postgres', q(
	CREATE ROLE monitoring LOGIN;
	SELECT sessions.session_grant('monitoring', 'monitor');
	ALTER ROLE monitoring SET search_path = sessions;));
$node->safe_psql('postgres', "SELECT sessions.session_create('ann')");

# The columns and the first row of a query, as the monitoring role sees them
sub ask
{
	my ($query) = @_;
	my ($columns, $row) = split /\n/,
	  $node->safe_psql('postgres', $query,
		extra_params =>
		  [ '-U', 'monitoring', '-P', 'tuples_only=off', '-P', 'footer=off' ]
	  );
	my %row;
	@row{ split /\|/, $columns } = split /\|/, $row, -1;
	return \%row;
}

my $spaces = parse("$docs/postgres_exporter.yml");
is_deeply(
	[ sort keys %$spaces ],
	[ 'session_manager', 'session_manager_live', 'session_manager_state' ],
	'the file has three queries');
ok( wait_until(
		sub {
			$node->safe_psql('postgres',
				'SELECT count(last_pass_at) FROM sessions.session_stats') ==
			  1;
		}),
	'a worker has been there');

my %rows;
foreach my $name (sort keys %$spaces)
{
	my $space = $spaces->{$name};
	my $row = $rows{$name} = ask($space->{query});
	is_deeply(
		[ sort keys %$row ],
		[ sort @{ $space->{metrics} } ],
		"$name: every column is a metric, every metric a column");
	is( scalar @{ $space->{usage} },
		scalar @{ $space->{metrics} },
		"$name: each with a usage");
	my @labels =
	  grep { $space->{usage}[$_] eq 'LABEL' } 0 .. $#{ $space->{metrics} };
	is_deeply([ map { $space->{metrics}[$_] } @labels ],
		['database_name'], "$name: one label");
	is_deeply(
		[
			grep { $_ ne 'database_name' && $row->{$_} !~ /^-?[\d.]+$/ }
			sort keys %$row
		],
		[],
		"$name: the others are numbers");
}
is($rows{session_manager}{sessions_created}, 1, 'a session was counted');
is($rows{session_manager_state}{workers_on}, 1, 'workers are on');
is($rows{session_manager_state}{key_file_loaded}, 1,
	'the key file is loaded');
is($rows{session_manager_state}{keys_unavailable}, 0, 'no key is missing');

# Nothing of the view is left out, of the file or of the text.
my $view = $node->safe_psql('postgres',
	"SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'sessions.session_stats'::regclass AND attnum > 0"
);
my @left =
  grep { !exists $rows{session_manager}{$_} && !/_failed_at$|_error$/ }
  split / /, $view;
is( "@left",
	'database_id last_pass_at last_pass_age next_pass_at stats_reset',
	'every counter of session_stats is exported');
my $text =
  slurp_file("$docs/monitoring.md") . slurp_file("$docs/reference.md");
is_deeply([ grep { $text !~ /`$_`/ && !/^database_/ } split / /, $view ],
	[], 'and explained');
my @alerts = slurp_file("$docs/session_manager_alerts.yml") =~ /expr: (.*)/g;
my @metrics = map { /\b(session_manager_\w+)/g } @alerts;
cmp_ok(scalar @metrics, '>=', scalar @alerts, 'every alert has a metric');
is_deeply(
	[
		grep {
			my $metric = $_;
			!grep { $metric =~ /^${_}_(\w+)$/ && exists $rows{$_}{$1} }
			  keys %rows
		} @metrics
	],
	[],
	'that there is');

my ($status, $stdout, $stderr) = $node->psql(
	'postgres',
	'SELECT * FROM sessions.user_sessions',
	extra_params => [ '-U', 'monitoring' ]);
like($stderr, qr/permission denied/, 'the role sees no session');
$node->stop;

done_testing();
