/*
 * An AgentX subagent on net-snmp's library that serves a sorted table of ROWS
 * rows and 15 columns, from memory: what BenchmarkWalk compares with.
 *
 *	peer SOCKET ROWS
 */
#include <net-snmp/net-snmp-config.h>
#include <net-snmp/net-snmp-includes.h>
#include <net-snmp/agent/net-snmp-agent-includes.h>

#include <stdio.h>
#include <stdlib.h>

#define COLUMNS 15

static int
handle(netsnmp_mib_handler *h, netsnmp_handler_registration *reg,
    netsnmp_agent_request_info *info, netsnmp_request_info *requests)
{
	netsnmp_request_info *r;
	netsnmp_table_request_info *t;
	struct counter64 c;
	long n;

	for (r = requests; r != NULL; r = r->next) {
		if (netsnmp_tdata_extract_row(r) == NULL)
			continue;
		t = netsnmp_extract_table_info(r);
		n = *t->indexes->val.integer;
		switch (t->colnum % 3) {
		case 0:
			snmp_set_var_typed_value(r->requestvb, ASN_OCTET_STR, "virtual machine", 15);
			break;
		case 1:
			snmp_set_var_typed_integer(r->requestvb, ASN_INTEGER, n);
			break;
		default:
			c.high = 1;
			c.low = n;
			snmp_set_var_typed_value(r->requestvb, ASN_COUNTER64, &c, sizeof c);
		}
	}
	return SNMP_ERR_NOERROR;
}

int
main(int argc, char **argv)
{
	static oid root[] = { 1, 3, 6, 1, 4, 1, 8072, 9999, 9999, 77 };
	netsnmp_table_registration_info *info;
	netsnmp_tdata *table;
	netsnmp_tdata_row *row;
	long i;

	if (argc != 3)
		return 2;
	snmp_disable_log();
	netsnmp_enable_subagent();
	netsnmp_ds_set_string(NETSNMP_DS_APPLICATION_ID, NETSNMP_DS_AGENT_X_SOCKET, argv[1]);
	netsnmp_ds_set_boolean(NETSNMP_DS_LIBRARY_ID, NETSNMP_DS_LIB_DONT_READ_CONFIGS, 1);
	init_agent("peer");
	table = netsnmp_tdata_create_table("peer", 0);
	info = SNMP_MALLOC_TYPEDEF(netsnmp_table_registration_info);
	netsnmp_table_helper_add_indexes(info, ASN_INTEGER, 0);
	info->min_column = 2;
	info->max_column = 1 + COLUMNS;
	for (i = 1; i <= atol(argv[2]); i++) {
		row = netsnmp_tdata_create_row();
		netsnmp_tdata_row_add_index(row, ASN_INTEGER, &i, sizeof i);
		netsnmp_tdata_add_row(table, row);
	}
	if (netsnmp_tdata_register(netsnmp_create_handler_registration("peer", handle,
	    root, OID_LENGTH(root), HANDLER_CAN_RONLY), table, info) != MIB_REGISTERED_OK)
		return 1;
	init_snmp("peer");
	for (;;)
		agent_check_and_process(1);
}
