//! The routes of `darkroom.v1.Admin`.

use crate::route::{Route, json_routes};

/// All of them.
pub(crate) fn routes() -> Vec<Route> {
    json_routes! { admin:
        POST "/keys" CREATE_KEY create_key(CreateKeyRequest) -> CreateKeyResponse 201 body;
        GET "/keys" LIST_KEYS list_keys(ListKeysRequest) -> ListKeysResponse 200 query;
        DELETE "/keys/{key}" REVOKE_KEY revoke_key(RevokeKeyRequest) -> Key 200 query, "key" = id;
        POST "/keys/{key}/rotations" ROTATE_KEY
            rotate_key(RotateKeyRequest) -> RotateKeyResponse 201 maybe_body, "key" = id;
        GET "/tenants" LIST_TENANTS
            list_tenants(ListTenantsRequest) -> ListTenantsResponse 200 query;
        GET "/tenants/{tenant}" GET_TENANT
            get_tenant(GetTenantRequest) -> Tenant 200 query, "tenant" = name;
        PATCH "/tenants/{tenant}" SET_TENANT
            set_tenant(SetTenantRequest) -> Tenant 200 body, "tenant" = name;
        GET "/retention" GET_RETENTION
            get_retention(GetRetentionRequest) -> GetRetentionResponse 200 query;
        PUT "/retention" SET_RETENTION
            set_retention(SetRetentionRequest) -> RetentionPolicy 200 body;
        POST "/cleanings" CLEAN_FARM
            clean_farm(CleanFarmRequest) -> CleanFarmResponse 200 maybe_body;
        GET "/audit" LIST_AUDIT list_audit(ListAuditRequest) -> ListAuditResponse 200 query;
    }
}
