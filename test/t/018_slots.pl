# A database that is new keeps its place in shared memory, however unlucky the
# moment at which the launcher looks for databases.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SessionManagerTest;
use Test::More;

plan skip_all => 'gdb is needed to stop the launcher at the right moment'
  if system('gdb --version >/dev/null 2>&1') != 0;

my $node = new_node('slots', preload => 'session_manager');
$node->safe_psql('postgres', 'CREATE DATABASE pattern');
install_extension($node, 'pattern');
my $launcher = $node->safe_psql('postgres',
	"SELECT pid FROM pg_stat_activity WHERE backend_type = 'session_manager launcher'"
);

# Stop the launcher where it has read the list of databases and not used it yet.
my $base = $node->basedir;
write_file(
	"$base/stop.gdb", qq(
set pagination off
handle SIGUSR1 nostop noprint
break CommitTransactionCommand
continue
shell touch $base/stopped; for i in \$(seq 600); do test -e $base/go && break; sleep 0.1; done
detach
quit
), 0644);
my ($gdb) = in_parallel(
	$node,
	{
		cmd =>
		  [ 'gdb', '-nx', '-batch', '-x', "$base/stop.gdb", '-p', $launcher ],
		out => "$base/gdb.log"
	});
ok( wait_until(sub { -e "$base/stopped" }, 60),
	'the launcher is looking for databases'
) or diag(slurp_file("$base/gdb.log"));
$node->safe_psql('postgres', 'CREATE DATABASE fresh TEMPLATE pattern');
my $connection = connection($node, 'fresh');
query($connection, "SELECT count(*) FROM session_create('ann')");
write_file("$base/go", '');
finish_all($gdb);

# Two rounds later, at the least, it has used the list.
$node->safe_psql('postgres', "CREATE DATABASE sign TEMPLATE pattern");
ok( wait_until(
		sub {
			$node->safe_psql('postgres',
				"SELECT count(*) FROM session_stats WHERE database_name = 'sign'"
			) eq '1';
		}),
	'it goes on');
is( $node->safe_psql(
		'postgres',
		"SELECT sessions_created FROM session_stats WHERE database_name = 'fresh'"
	),
	1,
	'a database that was made meanwhile has its place');
$connection->quit;
$node->safe_psql('postgres', 'DROP DATABASE fresh');
ok( wait_until(
		sub {
			$node->safe_psql('postgres',
				"SELECT count(*) FROM session_counters() WHERE database_id NOT IN (SELECT oid FROM pg_database)"
			) eq '0';
		}),
	'and gives it up when it is dropped');
$node->stop;

done_testing();
